"""Every kind that a config admits builds the thing that it names, and turns a batch into what its protocol promises."""

from types import SimpleNamespace

import pytest
import torch

from audiobat.audio.frontends.base import Frontend, build_frontend
from audiobat.config import FrontendConfig, HeadConfig, PretrainConfig, from_dict
from audiobat.config.registry import SEAMS, find, kinds
from audiobat.models.features import LayerFeatures
from audiobat.models.heads import Head, head_class
from audiobat.pretraining.decoders.base import Decoder
from audiobat.pretraining.masks.base import Mask
from audiobat.pretraining.objectives.base import Objective, build_objective
from audiobat.pretraining.targets.base import TargetSource
from audiobat.probing.tasks import ProbeTask

BASES = {
    "frontend": Frontend,
    "head": Head,
    "mask": Mask,
    "decoder": Decoder,
    "target": TargetSource,
    "objective": Objective,
    "task": ProbeTask,
}
TINY = {
    "frontend": {"mel_bins": 32, "n_fft": 512, "win_length": 512},
    "encoder": {"dim": 16, "depth": 2, "heads": 2, "max_frames": 64, "patch_size": [8, 8]},
    "decoder": {"depth": 1, "heads": 2, "groups": 2},
    "mask": {"clones": 2, "block_size": 2},
    "data": {"clip_seconds": 0.5},
}
PRETRAINING = {"mask": "kind", "decoder": "kind", "target": "source", "objective": "kind"}


def test_every_seam_is_held_here():
    assert set(BASES) == set(SEAMS) == {"frontend", "head", "task", *PRETRAINING}


@pytest.mark.parametrize(("seam", "kind"), [(seam, kind) for seam in SEAMS for kind in kinds(seam)])
def test_a_kind_is_a_class_of_its_seam_and_no_other_kind_is_the_same(seam, kind):
    found = find(seam, kind)
    assert issubclass(found, BASES[seam])
    assert found.__module__.endswith(f".{kind}")
    assert found.__doc__


@pytest.mark.parametrize(("seam", "kind"), [(seam, kind) for seam in PRETRAINING for kind in kinds(seam)])
@pytest.mark.parametrize("lengths", [None, torch.tensor([8_000, 3_000])])
def test_every_kind_of_pre_training_makes_a_step(seam, kind, lengths):
    fields = {**TINY, seam: {**TINY.get(seam, {}), PRETRAINING[seam]: kind}}
    if kind == "spectrogram":
        fields["objective"] = {"global_weight": 0.0}
    config = from_dict(PretrainConfig, fields)
    torch.manual_seed(0)
    objective = build_objective(config)
    parts = {"mask": "mask", "decoder": "decoder", "target": "targets"}
    built = getattr(objective, parts[seam]) if seam in parts else objective
    assert type(built) is find(seam, kind)
    batch = SimpleNamespace(waveform=torch.randn(2, 8_000) / 10, lengths=lengths)
    loss, stats = objective(batch, 0)
    loss.backward()
    objective.after_step(0)
    assert torch.isfinite(loss)
    assert all(value.ndim == 0 and not value.requires_grad for value in stats.values())
    assert set(objective.health) <= set(stats)
    assert objective.cost().flops > 0


@pytest.mark.parametrize("kind", kinds("frontend"))
def test_every_frontend_gives_the_frames_that_it_counts(kind):
    frontend = build_frontend(FrontendConfig(kind=kind))
    assert type(frontend) is find("frontend", kind)
    spectrogram, frames = frontend(torch.randn(2, 5_000), torch.tensor([5_000, 2_000]))
    assert spectrogram.shape == (2, int(frames[0]), 128)
    assert frames.tolist() == frontend.frame_counts(torch.tensor([5_000, 2_000])).tolist()


@pytest.mark.parametrize("kind", [kind for kind in kinds("head") if head_class(kind).reads != "blocks"])
def test_every_head_gives_logits(kind):
    config = from_dict(HeadConfig, {"kind": kind, "prototypes": 5, "queries": 4, "per_class": 2})
    head = head_class(kind).build(config, 16, 2, 3, 2)
    features = LayerFeatures(
        torch.randn(2, 4, 6, 16), torch.randn(2, 4, 16), (3, 2), torch.ones(4, 6, dtype=torch.bool), torch.arange(3.0)
    )
    if not head.trains:
        head.fit(head.pool(features), torch.eye(4, 3))
    assert head.eval()(features).shape == (4, 3)
