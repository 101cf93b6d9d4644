"""The loss and its gradients against benchmarks/plain.py, the method as one writes it without a thought of speed."""

import random
import types

import pytest
import torch
from benchmark_scripts import load_script

from audiobat.config import (
    EncoderConfig,
    MaskConfig,
    ObjectiveConfig,
    PretrainConfig,
    TargetConfig,
)
from audiobat.pretraining.masks.base import Masks
from audiobat.pretraining.objectives.masked_latent_regression import MaskedLatentRegression
from tests.pretraining.test_objective import tiny

plain = load_script("plain")
SAMPLES, SHORT = 10_000, 4_000


def config_of(**parts) -> PretrainConfig:
    encoder = EncoderConfig(dim=32, depth=3, heads=4, max_frames=64, patch_size=(8, 8))
    return tiny(**({"encoder": encoder, "mask": MaskConfig(clones=5, block_size=2)} | parts))


def pair_of(config: PretrainConfig) -> tuple[MaskedLatentRegression, torch.nn.Module]:
    """Ours, its teacher and positions moved from where they begin; and the plain step with the same weights."""
    torch.manual_seed(0)
    ours = MaskedLatentRegression(config)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    theirs = plain.PlainStep(config)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


@pytest.mark.parametrize("lengths", [None, torch.tensor([SAMPLES, SHORT, SAMPLES])], ids=["full", "padded"])
@pytest.mark.parametrize(
    "parts",
    [{}, {"target": TargetConfig(layers=2), "objective": ObjectiveConfig(global_weight=0.5, scale=3.0)}],
    ids=["paper", "weights"],
)
def test_loss_and_every_gradient_are_those_of_the_plain_step(lengths, parts):
    config = config_of(**parts)
    ours, theirs = pair_of(config)
    waveform = torch.randn(3, SAMPLES) * 0.1
    spectrogram, valid = ours.student.spectrogram(waveform, lengths)
    grid = (spectrogram.shape[1] // 8, 4)
    masks = Masks(*plain.draw_masks(config, 3 * config.mask.clones, grid, random.Random(0)))
    ours.mask = lambda count, grid, generator: masks
    loss, stats = ours(types.SimpleNamespace(waveform=waveform, lengths=lengths), 7)
    loss.backward()
    wanted = theirs(spectrogram, *masks, valid)
    wanted[0].backward()
    assert (valid is None) == (lengths is None)
    torch.testing.assert_close(
        torch.stack([loss.detach(), stats["local_loss"], stats["global_loss"]]),
        torch.stack(wanted).detach(),
        atol=1e-5,
        rtol=1e-5,
    )
    gradients = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad.abs().max() > 1e-4, name  # nothing is compared with zeros
            torch.testing.assert_close(parameter.grad, gradients[name].grad, atol=1e-5, rtol=1e-5, msg=name)


@pytest.mark.parametrize("samples", [10_000, 12_345])  # 10,241 samples fill the 64 frames of a window
def test_spectrograms_are_those_of_the_plain_step(samples):
    ours, theirs = pair_of(config_of())
    waveform = torch.randn(2, samples) * 0.1
    wanted, valid = ours.student.spectrogram(waveform)
    assert valid is None
    torch.testing.assert_close(theirs.spectrogram(waveform), wanted, atol=1e-5, rtol=1e-5)


def test_the_teacher_follows_as_in_the_plain_step():
    ours, theirs = pair_of(config_of())
    ours.after_step(25)
    theirs.follow(ours.teacher.decay_at(25))
    for name, own in ours.teacher.encoder.named_parameters():
        torch.testing.assert_close(own, dict(theirs.named_parameters())[f"teacher.encoder.{name}"])


def test_plain_masks_hold_every_cell_once_and_show_blocks():
    config = config_of(mask=MaskConfig(block_size=5))
    visible, masked = plain.draw_masks(config, 200, (64, 8), random.Random(0))
    assert visible.shape == (200, 102)
    assert torch.equal(torch.cat([visible, masked], 1).sort(1).values, torch.arange(512).expand(200, -1))
    shown = torch.zeros(200, 512).scatter(1, visible, 1.0).view(200, 64, 8)
    neighbours = (shown[:, 1:] * shown[:, :-1]).sum() / shown[:, :-1].sum()
    assert 0.6 < neighbours < 0.85  # single random cells: 0.2
