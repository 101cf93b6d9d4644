"""What the tests of adapters share: clips of noise, random weights in a folder, the rules that any encoder keeps."""

from pathlib import Path
from typing import Any

import torch

from audiobat.audio.read import pad_batch
from audiobat.models.features import Encoder, LayerFeatures
from audiobat.zoo.doctor.encoder import examine

CLOSE = {"atol": 2e-4, "rtol": 1e-4}


def noise(*seconds: float, rate: int = 16_000) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [0.1 * torch.randn(round(s * rate), generator=generator) for s in seconds]


def save(folder: Path, model: torch.nn.Module, extractor: Any) -> Path:
    """Publish random weights, away from the initial values at which every layer does nearly nothing."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter + 0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    if extractor is not None:
        extractor.save_pretrained(folder)
    return folder


@torch.no_grad()
def features(encoder: Encoder, clips: list[torch.Tensor]) -> LayerFeatures:
    return encoder.forward_intermediates(*pad_batch(clips))


def check_rules(encoder: Encoder, clips: list[torch.Tensor]) -> LayerFeatures:
    """Doctor finds no fault; shapes, times and validity; and a clip's features are what they are alone."""
    assert [found for found in examine(encoder, torch.device("cpu")) if found[1]] == []
    together = features(encoder, clips)
    columns, rows = together.grid
    assert together.patch_tokens.shape == (encoder.depth, len(clips), columns * rows, encoder.dim)
    assert together.valid.shape == (len(clips), columns * rows)
    assert together.frame_times.shape == (columns,)
    assert together.frame_times[0] == 0
    for i, clip in enumerate(clips):
        alone = features(encoder, [clip])
        count = alone.patch_tokens.shape[2]
        assert alone.valid.all()
        assert together.valid[i].tolist() == [True] * count + [False] * (columns * rows - count)
        torch.testing.assert_close(together.patch_tokens[:, i, :count], alone.patch_tokens[:, 0], **CLOSE)
        if alone.cls_token is not None:
            assert together.cls_token is not None
            torch.testing.assert_close(together.cls_token[:, i], alone.cls_token[:, 0], **CLOSE)
        last = alone.frame_times[-1].item()
        assert last < len(clip) / encoder.sample_rate
    return together
