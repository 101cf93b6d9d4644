"""The first step of an objective, checked: what its parts and itself return, against their protocols.

In: an objective. Out: nothing, or an AudiobatError that names the class at fault. Hooks do it, for one step, so that an
objective of a user's own gets the checks for every part that it builds, and no later step pays for them. Without them a
target of another grid is an IndexError inside the objective, and a decoder of width 1 trains, by broadcasting.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from audiobat.config.user_files import described
from audiobat.errors import AudiobatError
from audiobat.pretraining.decoders.base import Decoder
from audiobat.pretraining.masks.base import Mask, Masks
from audiobat.pretraining.objectives.base import Objective
from audiobat.pretraining.targets.base import Targets, TargetSource


def try_step(objective: Objective) -> None:
    """Run an objective on two clips of noise, checked.

    Raises:
        AudiobatError: as for `check_first_step`.
    """
    config = objective.config
    samples = int(config.data.clip_seconds * config.frontend.sample_rate)
    check_first_step(objective)
    device = next(objective.parameters()).device
    with torch.random.fork_rng():
        objective(SimpleNamespace(waveform=torch.randn(2, samples, device=device) / 10, lengths=None), 0)


def check_first_step(objective: Objective) -> None:
    """Check the next forward pass of `objective`, and no other.

    Raises:
        AudiobatError: from within that pass, if a part of it or itself returns something else than its protocol says.
    """
    hooks = ExitStack()
    for module in objective.modules():
        if isinstance(module, TargetSource):

            def of_targets(part: TargetSource, args: Any, kwargs: Any, output: Any) -> None:
                spectrogram = next(value for value in (*args, *kwargs.values()))  # the first argument
                with torch.no_grad():
                    patches = objective.encoder.embed_patches(spectrogram).shape[1]
                refuse(part, "forward", target_fault(part, output, len(spectrogram), patches))

            hooks.callback(module.register_forward_hook(of_targets, with_kwargs=True).remove)
        if isinstance(module, Decoder):

            def of_predictions(part: Decoder, args: Any, kwargs: Any, output: Any) -> None:
                masks = next((value for value in (*args, *kwargs.values()) if isinstance(value, Masks)), None)
                if masks is not None and hasattr(part, "predicted_width"):
                    refuse(
                        part, "forward", shape_fault(output, (*masks.masked.shape, part.predicted_width), "R, m, width")
                    )

            hooks.callback(module.register_forward_hook(of_predictions, with_kwargs=True).remove)
        for mask in [value for value in vars(module).values() if isinstance(value, Mask)]:

            def draw(count: int, grid: tuple[int, int], generator: torch.Generator, mask: Mask = mask) -> Masks:
                masks = type(mask).draw(mask, count, grid, generator)
                refuse(mask, "draw", mask_fault(masks, count, grid[0] * grid[1]))
                return masks

            mask.draw = draw  # type: ignore[method-assign]  # a mask is no module, and has no hooks
            hooks.callback(delattr, mask, "draw")

    def of_loss(part: Objective, args: Any, output: Any) -> None:
        hooks.close()
        refuse(part, "forward", loss_fault(output))

    hooks.callback(objective.register_forward_hook(of_loss).remove)


def refuse(part: object, method: str, fault: str | None) -> None:
    """Raise an AudiobatError that names the class and the method, if there is a fault."""
    if fault is not None:
        raise AudiobatError(f"{described(type(part))}.{method} returns {fault} (docs/variants.md).")


def shape_fault(value: Any, shape: tuple[int, ...], names: str) -> str | None:
    """What is wrong with a tensor that should have `shape`, whose dimensions have `names`."""
    if isinstance(value, Tensor) and tuple(value.shape) == shape:
        return None
    given = list(value.shape) if isinstance(value, Tensor) else f"a {type(value).__name__}"
    return f"{given}: it must be a tensor [{names}], here {list(shape)}"


def mask_fault(masks: Any, count: int, patches: int) -> str | None:
    """What is wrong with `count` masks over a grid of `patches` patches."""
    if not isinstance(masks, Masks):
        return f"a {type(masks).__name__}: it must be Masks(visible [{count}, n], masked [{count}, m])"
    for name, index in masks._asdict().items():
        if not (isinstance(index, Tensor) and index.ndim == 2 and index.dtype == torch.int64 and index.numel()):
            return f"{name} patches that are no tensor [{count}, 1 or more] of int64"
        if len(index) != count:
            return f"{len(index)} rows of {name} patches: it must be {count}, one for each clone"
        if index.min() < 0 or index.max() >= patches:
            return f"{name} patches from {index.min()} to {index.max()}: the grid has 0 to {patches - 1}"
    shown = torch.zeros(count, patches, dtype=torch.bool, device=masks.visible.device).scatter_(1, masks.visible, True)
    return "patches that are visible and masked at once" if shown.gather(1, masks.masked).any() else None


def target_fault(part: TargetSource, targets: Any, clips: int, patches: int) -> str | None:
    """What is wrong with the targets of `clips` clips of `patches` patches."""
    if not isinstance(targets, Targets):
        return f"a {type(targets).__name__}: it must be Targets(patch_targets, cls_target, variance)"
    if fault := shape_fault(targets.patch_targets, (clips, patches, part.width), "B, N, width"):
        return f"patch_targets {fault}"
    if (targets.cls_target is not None) != part.has_cls_target:
        given = "no cls_target" if targets.cls_target is None else "a cls_target"
        return f"{given}, and its has_cls_target is {part.has_cls_target}"
    if targets.patch_targets.requires_grad:
        return "patch_targets with a gradient: write @torch.no_grad() above it"
    return None if is_scalar(targets.variance) else "a variance that is no scalar: give one number"


def loss_fault(output: Any) -> str | None:
    """What is wrong with what an objective returns."""
    if not (isinstance(output, tuple) and len(output) == 2 and isinstance(output[1], Mapping)):
        return f"a {type(output).__name__}: it must be (loss, statistics), a tensor and a dict"
    loss, stats = output
    if fault := shape_fault(loss, (), ""):
        return f"a loss {fault}, a scalar"
    if not loss.requires_grad:
        return "a loss without gradient: it must depend on parameters that are trained"
    wrong = next((name for name, value in stats.items() if not is_scalar(value)), None)
    return None if wrong is None else f"a statistic {wrong} that is no scalar: give a mean over the batch"


def is_scalar(value: object) -> bool:
    """Whether a value is one number: a tensor [] or a Python number."""
    return value.ndim == 0 if isinstance(value, Tensor) else isinstance(value, int | float)
