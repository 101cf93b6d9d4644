"""s3prl itself with our expert, and stand-ins for torchaudio, whose new versions lack what it imports: `make kits`."""

import sys
from importlib.machinery import ModuleSpec
from unittest.mock import MagicMock

import pytest
import torch

pytest.importorskip("s3prl", reason="make kits installs it")

from audiobat.zoo.integrations.s3prl import UpstreamExpert


@pytest.fixture
def hub(monkeypatch):
    """s3prl's table of models, with ours; the expert needs no torchaudio."""
    for part in ("", ".functional", ".transforms", ".compliance", ".compliance.kaldi", ".sox_effects"):
        stand_in = MagicMock()
        stand_in.__spec__ = ModuleSpec(f"torchaudio{part}", None)
        monkeypatch.setitem(sys.modules, f"torchaudio{part}", stand_in)
    from s3prl import hub

    monkeypatch.setattr(hub, "audiobat", lambda ckpt=None, **more: UpstreamExpert(ckpt, **more), raising=False)
    return hub


def test_features_of_a_clip_are_its_own_in_any_batch(hub):
    from s3prl.nn import Featurizer, S3PRLUpstream

    upstream = S3PRLUpstream("audiobat", path_or_url="bat_nano").eval()
    assert (upstream.num_layers, set(upstream.hidden_sizes), set(upstream.downsample_rates)) == (6, {128}, {5120})
    waveforms = 0.1 * torch.randn(2, 112_000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        together, counts = upstream(waveforms, torch.tensor([80_000, 112_000]))
        alone, own_count = upstream(waveforms[:1, :80_000], torch.tensor([80_000]))
        mixed, _ = Featurizer(upstream)(together, counts)
        frames = upstream.upstream([waveforms[0, :80_000]])["hidden_states"][0].shape[1]
    assert (frames, own_count[0].tolist(), counts[0].tolist()) == (15, [16], [16, 22])  # s3prl wants one more
    for layer, own in zip(together, alone, strict=True):
        torch.testing.assert_close(layer[0, :16], own[0], atol=1e-4, rtol=1e-4)
    assert mixed.shape == (2, 22, 128)
