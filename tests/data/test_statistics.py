"""Global statistics: presets by name, and mean and deviation of a user's own clips against plain NumPy."""

import json
import re
from itertools import pairwise
from typing import get_args

import numpy as np
import pytest
import soundfile
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audiobat.audio.frontends.base import build_frontend
from audiobat.cli import command as cli
from audiobat.config import STATISTICS, FinetuneConfig, FrontendConfig, PretrainConfig, Statistics, from_dict, to_dict
from audiobat.config.recipes import load_recipe, merge
from audiobat.data.prepare import statistics as statistics_module
from audiobat.data.prepare.statistics import LogMelSums, log_mel_sums
from audiobat.data.sources.read import read_clips
from audiobat.errors import AudiobatError

# -- presets --

PUBLISHED = {  # in the code of EAT, Audio-MAE and SSLAM, and in BAT's release
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
    raw = frontend.raw_spectrogram(waveform, torch.tensor([2_000]))
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
    assert to_dict(config)["frontend"] == {
        "statistics": "esc50_eat",
        "mean": -6.627,
        "std": 5.359,
        "pad_seconds": 0.0,
    }
    assert from_dict(FinetuneConfig, to_dict(config)) == config


# -- of a user's own clips --

RATE = 16_000


def kaldi_oracle(samples: np.ndarray, shift: int = 160, width: int = 400, bins: int = 128) -> np.ndarray:
    """Kaldi's filter bank in float64, frame by frame: [T, bins]."""
    samples = samples.astype(np.float64) - samples.astype(np.float64).mean()
    if len(samples) < width:
        samples = np.pad(samples, (0, width - len(samples)))
    mels = 1127 * np.log(1 + np.arange(257) * RATE / 512 / 700)
    low, high = 1127 * np.log(1 + 20 / 700), 1127 * np.log(1 + 8_000 / 700)
    edges = np.linspace(low, high, bins + 2)
    up = (mels[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    down = (edges[2:] - mels[:, None]) / (edges[2:] - edges[1:-1])
    filters = np.clip(np.minimum(up, down), 0, None)  # [257, bins]
    filters[-1] = 0
    rows = []
    for begin in range(0, len(samples) - width + 1, shift):
        frame = samples[begin : begin + width]
        frame = frame - frame.mean()
        frame = frame - 0.97 * np.concatenate([frame[:1], frame[:-1]])
        power = np.abs(np.fft.rfft(frame * np.hanning(width), 512)) ** 2
        rows.append(np.log(np.maximum(power @ filters, np.finfo(np.float32).eps)))
    return np.array(rows)


def sound(i: int, seconds: float) -> np.ndarray:
    """Noise that fades, with an offset; every sixth is silence."""
    count = round(seconds * RATE)
    noise = np.random.default_rng(i).standard_normal(count) * np.linspace(0.3, 0.01, count) + 0.05
    return (np.zeros(count) if i % 6 == 5 else noise).astype(np.float32)


LENGTHS = (0.5, 0.02, 1.0, 0.73, 0.3, 0.4, 0.11, 0.6, 0.25, 0.9, 0.31, 0.2)  # seconds


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Twelve clips of many lengths, two of them silent; two clips a chunk."""
    monkeypatch.setattr(statistics_module, "CHUNK", 2)
    clips = tmp_path / "clips"
    clips.mkdir()
    for i, seconds in enumerate(LENGTHS):
        soundfile.write(clips / f"{i:02d}.wav", sound(i, seconds), RATE, subtype="FLOAT")
    return clips


def oracle() -> np.ndarray:
    """Every cell of every clip."""
    return np.concatenate([kaldi_oracle(sound(i, seconds)).ravel() for i, seconds in enumerate(LENGTHS)])


def test_statistics_are_those_of_all_frames_of_all_clips(folder):
    sums = log_mel_sums(read_clips(folder), FrontendConfig(kind="kaldi_fbank"))
    cells = oracle()
    assert (sums.clips, sums.silent, sums.cells) == (12, 2, len(cells))
    assert sums.mean == pytest.approx(cells.mean(), rel=1e-6)
    assert sums.std == pytest.approx(cells.std(), rel=1e-6)
    again = log_mel_sums(read_clips(folder), FrontendConfig(kind="kaldi_fbank"), workers=2)
    assert again == sums


def test_clips_longer_than_a_window_are_cut(tmp_path):
    frontend = FrontendConfig(kind="kaldi_fbank", hop_length=16, mel_bins=16)
    window = 1024 * 16
    samples = sound(0, (2 * window + 300) / RATE)  # the last 300 samples are less than a frame
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    sums = log_mel_sums(read_clips(tmp_path), frontend)
    halves = [kaldi_oracle(part, shift=16, bins=16) for part in (samples[:window], samples[window : 2 * window])]
    assert sums.cells == sum(half.size for half in halves)
    assert sums.mean == pytest.approx(np.concatenate(halves).mean(), rel=1e-6)
    soundfile.write(tmp_path / "a.wav", samples[: 2 * window], RATE, subtype="FLOAT")
    assert log_mel_sums(read_clips(tmp_path), frontend).cells == sums.cells


@given(cuts=st.lists(st.integers(0, 12), max_size=4))
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_parts_add_up_to_the_whole(folder, cuts):
    table, frontend = read_clips(folder), FrontendConfig(kind="kaldi_fbank", mel_bins=16)
    edges = [0, *sorted(cuts), 12]
    parts = [log_mel_sums(table.select(np.arange(a, b)), frontend) for a, b in pairwise(edges)]
    whole, merged = log_mel_sums(table, frontend), sum(parts, LogMelSums())
    assert (merged.clips, merged.silent, merged.cells) == (whole.clips, whole.silent, whole.cells)
    assert merged.mean == pytest.approx(whole.mean, rel=1e-14)
    assert merged.std == pytest.approx(whole.std, rel=1e-13)


def stats(capsys, *argv: object) -> tuple[int, str, str]:
    code = cli.main(["prepare", *map(str, argv), "--stats", "--workers", "1"])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_the_command_prints_what_a_recipe_takes(folder, tmp_path, capsys):
    file = tmp_path / "found" / "mine.json"
    code, out, err = stats(capsys, folder, file)
    assert code == 0
    cells = oracle()
    wanted = {"statistics": "auto", "mean": round(cells.mean(), 4), "std": round(cells.std(), 4)}
    assert yaml.safe_load(out) == {"frontend": wanted}
    assert "# silent: 2 of them" in out
    assert "statistics: 0/12 clips" in err
    content = json.loads(file.read_text())
    assert content["mean"] == pytest.approx(cells.mean(), rel=1e-6)
    assert content["std"] == pytest.approx(cells.std(), rel=1e-6)
    assert content["frontend"]["kind"] == "kaldi_fbank"
    assert [path.name for path in file.parent.iterdir()] == ["mine.json"]
    merged = merge(load_recipe("sslam"), yaml.safe_load(out))
    assert from_dict(PretrainConfig, merged).frontend.moments == (wanted["mean"], wanted["std"])
    tuned = merge(load_recipe("finetune/eat_esc50"), yaml.safe_load(out))
    assert from_dict(FinetuneConfig, tuned).frontend.mean == wanted["mean"]


def test_what_is_written_is_not_computed_again_but_anew_if_asked(folder, tmp_path, capsys, monkeypatch):
    file = tmp_path / "mine.json"
    _, first, _ = stats(capsys, folder, file)
    monkeypatch.setattr(statistics_module, "log_mel_sums", None)
    code, again, _ = stats(capsys, folder, file)
    assert (code, again) == (0, first)
    monkeypatch.undo()
    soundfile.write(folder / "12.wav", sound(12, 1.0), RATE)
    code, _, err = stats(capsys, folder, file)
    assert code == 2
    assert "mine.json holds statistics of other clips: give --overwrite, or another OUT." in err
    assert stats(capsys, folder, file, "--overwrite")[0] == 0
    code, _, err = stats(capsys, folder, file, "--frontend.mel_bins", "64")
    assert code == 2
    assert "holds statistics of another frontend" in err
    file.write_text("{}")
    code, _, err = stats(capsys, folder, file)
    assert code == 2
    assert "mine.json holds no statistics: remove it, or give --overwrite." in err


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_whoever_finds_all_parts_adds_them_up(folder, tmp_path, capsys, order):
    file, whole = tmp_path / "parts.json", tmp_path / "whole.json"
    stats(capsys, folder, whole)
    for number in order[:-1]:
        code, out, _ = stats(capsys, folder, file, "--part", f"{number}/3")
        assert code == 0
        assert yaml.safe_load(out) is None
        assert f"{order[-1]}/3" in out
        assert not file.exists()
    _, out, _ = stats(capsys, folder, file, "--part", f"{order[-1]}/3")
    found, wanted = json.loads(file.read_text()), json.loads(whole.read_text())
    assert yaml.safe_load(out)["frontend"] == {
        "statistics": "auto",
        "mean": round(wanted["mean"], 4),
        "std": round(wanted["std"], 4),
    }
    assert found["mean"] == pytest.approx(wanted["mean"], rel=1e-14)
    assert found["std"] == pytest.approx(wanted["std"], rel=1e-14)
    assert found["sums"]["cells"] == wanted["sums"]["cells"]
    assert sorted(path.name for path in tmp_path.glob("*.json")) == ["parts.json", "whole.json"]
    assert stats(capsys, folder, file, "--part", "2/3")[1] == out  # a part that comes late finds it done


def test_more_parts_than_clips(folder, tmp_path, capsys):
    for number in range(1, 15):
        code, out, _ = stats(capsys, folder, tmp_path / "s.json", "--part", f"{number}/14")
        assert code == 0
    assert yaml.safe_load(out)["frontend"]["mean"] == round(oracle().mean(), 4)


def test_a_killed_run_goes_on_where_it_was(folder, tmp_path, capsys, monkeypatch):
    """The same bytes as of a run that nobody stopped, and no clip is read twice."""
    monkeypatch.setattr(statistics_module, "SAVE_SECONDS", 0.0)
    whole, file = tmp_path / "whole.json", tmp_path / "stopped.json"
    stats(capsys, folder, whole)
    read, really = [], statistics_module.clip_sums

    def interrupted(table, row, frontend):
        if len(read) == 7:
            read.append("stop")
            raise KeyboardInterrupt
        read.append(row)
        return really(table, row, frontend)

    monkeypatch.setattr(statistics_module, "clip_sums", interrupted)
    table, frontend = read_clips(folder), FrontendConfig(kind="kaldi_fbank")
    with pytest.raises(KeyboardInterrupt):
        statistics_module.statistics(table, frontend, file, (0, 1), 0, False)
    assert not file.exists()
    statistics_module.statistics(table, frontend, file, (0, 1), 0, False)
    assert read[8:] == [6, 7, 8, 9, 10, 11]  # two clips a chunk: three were done
    assert file.read_bytes() == whole.read_bytes()


def test_clips_that_cannot_be_read_are_counted_and_named(folder, tmp_path, capsys):
    for i in range(12, 24):
        soundfile.write(folder / f"{i}.wav", sound(i, 0.1), RATE)
    (folder / "13.wav").write_text("no audio")
    code, out, _ = stats(capsys, folder, tmp_path / "s.json")
    assert code == 0
    assert "# skipped: 1 clips that cannot be read\n#   13.wav: " in out
    assert "13.wav" in json.loads((tmp_path / "s.json").read_text())["sums"]["skipped"]["13.wav"]
    for i in range(14, 18):
        (folder / f"{i}.wav").write_text("no audio")
    code, _, err = stats(capsys, folder, tmp_path / "t.json")
    assert code == 2
    assert "are unreadable, more than 5% of the 24 clips" in err


def test_silence_alone_has_no_deviation(tmp_path, capsys):
    soundfile.write(tmp_path / "a.wav", np.zeros(8_000), RATE)
    code, _, err = stats(capsys, tmp_path)
    assert code == 2
    assert "All 1 clips are silent: their log-mel is -15.9424 throughout." in err


def test_a_prepared_folder_keeps_its_statistics_and_stays_what_it_is(folder, tmp_path, capsys):
    packed = tmp_path / "packed"
    assert cli.main(["prepare", str(folder), str(packed), "--encoding", "pcm", "--workers", "1"]) == 0
    capsys.readouterr()
    code, out, _ = stats(capsys, packed)
    assert code == 0
    assert out.splitlines()[-1] == f"# written to {packed / 'statistics.json'}"
    assert yaml.safe_load(out)["frontend"]["mean"] == pytest.approx(oracle().mean(), abs=0.2)  # 16 bits are coarser
    before = (packed / "statistics.json").read_bytes()
    assert cli.main(["prepare", str(folder), str(packed), "--encoding", "pcm", "--workers", "1"]) == 0
    assert (packed / "statistics.json").read_bytes() == before


@pytest.mark.parametrize(
    ("argv", "kind", "bins"),
    [
        ((), "kaldi_fbank", 128),
        (("--config", "eat_base"), "kaldi_fbank", 128),
        (("--config", "ladder/1_eat_frontend", "--frontend.mel_bins", "32"), "kaldi_fbank", 32),
        (("--config", "bat_base"), "mel_db", 128),
        (("--config", "birds_32khz", "--frontend.norm", "global"), "mel_db", 128),
        (("--frontend.kind", "mel_db", "--frontend.mel_bins", "16"), "mel_db", 16),
    ],
)
def test_the_frontend_is_a_recipes_or_eats(folder, tmp_path, capsys, argv, kind, bins):
    code, out, _ = stats(capsys, folder, tmp_path / "s.json", *argv)
    assert code == 0
    content = json.loads((tmp_path / "s.json").read_text())
    assert (content["frontend"]["kind"], content["frontend"]["mel_bins"]) == (kind, bins)
    pasted = yaml.safe_load(out)
    is_minmax = kind == "mel_db" and "--frontend.norm" not in argv
    assert pasted["frontend"].get("norm") == ("global" if is_minmax else None)
    if is_minmax:
        assert from_dict(PretrainConfig, pasted).frontend.norm == "global"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ("{clips} {tmp}/out --stats", "OUT is '{tmp}/out': statistics go to a .json file"),
        ("{clips} --stats --part 1/2", "--part is '1/2': name a .json file as OUT"),
        ("{clips} {tmp}/s.json --stats --encoding pcm", "--stats is True: it packs nothing"),
        ("{clips} {tmp}/out --frontend.mel_bins 64", "shards hold waveforms; give --stats too"),
        ("{clips} {tmp}/s.json --stats --frontend.mel_bin 64", "did you mean"),
    ],
)
def test_mistakes_are_one_sentence(folder, tmp_path, capsys, argv, words):
    code = cli.main(["prepare", *argv.format(clips=folder, tmp=tmp_path).split()])
    assert code == 2
    assert words.format(tmp=tmp_path) in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
