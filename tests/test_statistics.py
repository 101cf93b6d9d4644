"""Global statistics: presets by name, and mean and deviation of a user's own clips against plain NumPy."""

import re
from typing import get_args

import pytest
import torch
import yaml

from audiobat.config import STATISTICS, FinetuneConfig, FrontendConfig, PretrainConfig, Statistics, from_dict, to_dict
from audiobat.errors import AudiobatError
from audiobat.frontend import build_frontend
from audiobat.recipes import load_recipe, merge

# -- presets --

PUBLISHED = {  # lineage 1.3 and X.3
    "audioset_eat": (-4.268, 4.569),
    "esc50_eat": (-6.627, 5.359),
    "speech_commands_eat": (-6.846, 5.565),
    "audioset_mae": (-4.2677393, 4.5689974),
    "esc50_mae": (-6.6268077, 5.358466),
    "speech_commands_mae": (-6.845978, 5.5654526),
    "audioset_released": (-4.5986, 4.3574),
    "esc50_released": (-6.8541, 5.3977),
    "speech_commands_released": (-9.0342, 4.5730),
    "librispeech_released": (-7.3293, 4.0610),
    "birdset_released": (-8.5505, 4.0453),
    "dcase2016_released": (-10.6859, 2.0616),
}


def test_presets_are_the_published_numbers():
    assert STATISTICS == PUBLISHED
    assert get_args(Statistics) == ("auto", *PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_preset_fills_mean_and_std(name):
    config = FrontendConfig(kind="kaldi_fbank", statistics=name)
    assert (config.mean, config.std) == config.moments == PUBLISHED[name]
    assert from_dict(FrontendConfig, to_dict(config)) == config  # as a run's config.yaml is read back


def test_a_preset_scales_by_twice_the_deviation_and_pads_before():
    mean, std = PUBLISHED["esc50_eat"]
    frontend = build_frontend(FrontendConfig(kind="kaldi_fbank", statistics="esc50_eat"))
    waveform = 0.1 * torch.randn(1, 4_000, generator=torch.Generator().manual_seed(0))
    spectrogram, frames = frontend(waveform, torch.tensor([2_000]))
    raw = frontend.log_mel(waveform, torch.tensor([2_000]))
    assert int(frames) == 11 < spectrogram.shape[1]
    torch.testing.assert_close(spectrogram[:, :11], (raw[:, :11] - mean) / (2 * std))
    torch.testing.assert_close(spectrogram[:, 11:].unique(), torch.tensor([-mean / (2 * std)]))
    assert frontend.floor == pytest.approx(-mean / (2 * std))


def test_explicit_numbers_win_and_the_default_is_audiosets():
    assert FrontendConfig().moments == FrontendConfig(kind="kaldi_fbank").moments == PUBLISHED["audioset_eat"]
    assert FrontendConfig(mean=-5.0, std=2.0).moments == (-5.0, 2.0)
    assert FrontendConfig(mean=0.0).moments == (0.0, 4.569)
    assert FrontendConfig(statistics="esc50_eat", mean=-6.627).moments == PUBLISHED["esc50_eat"]


@pytest.mark.parametrize("group", [FrontendConfig, lambda **f: FinetuneConfig(frontend=from_dict(own(), f))])
def test_a_number_that_a_preset_contradicts_is_an_error(group):
    wanted = "frontend.mean is -4.268: frontend.statistics esc50_eat has -6.627; give one or the other."
    with pytest.raises(AudiobatError, match=re.escape(wanted)):
        group(statistics="esc50_eat", mean=-4.268)
    with pytest.raises(AudiobatError, match=r"frontend.std is 5.0: frontend.statistics esc50_eat has 5.359"):
        group(statistics="esc50_eat", std=5.0)
    with pytest.raises(AudiobatError, match=r"frontend.std is 0.0: it must be positive"):
        group(std=0.0)
    with pytest.raises(AudiobatError, match=r"statistics is 'esc50': choose one of auto, audioset_eat, .*did you mean"):
        group(statistics="esc50")


def own() -> type:
    return type(FinetuneConfig().frontend)


@pytest.mark.parametrize(
    ("name", "statistics"),
    [
        ("eat_base", "audioset_eat"),
        ("eat_large", "audioset_eat"),
        ("data2vec2", "audioset_eat"),
        ("ladder/1_eat_frontend", "audioset_eat"),
        ("audio_mae", "audioset_mae"),
        ("sslam", "audioset_mae"),
    ],
)
def test_a_recipe_takes_its_models_statistics_and_a_users_own_replace_them(name, statistics):
    fields = load_recipe(name)
    assert from_dict(PretrainConfig, fields).frontend.moments == PUBLISHED[statistics]
    pasted = yaml.safe_load("frontend:\n  statistics: auto\n  mean: -7.5\n  std: 3.25\n")
    assert from_dict(PretrainConfig, merge(fields, pasted)).frontend.moments == (-7.5, 3.25)


def test_a_fine_tunings_config_holds_numbers():
    config = from_dict(FinetuneConfig, load_recipe("finetune/eat_esc50"))
    assert to_dict(config)["frontend"] == {"statistics": "esc50_eat", "mean": -6.627, "std": 5.359}
    assert from_dict(FinetuneConfig, to_dict(config)) == config
