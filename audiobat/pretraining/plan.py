"""What a pre-training run will cost, from its config alone (`--dry-run`): parameters, tokens, FLOPs, memory, clips."""

from __future__ import annotations

from dataclasses import dataclass

from audiobat.config import PretrainConfig
from audiobat.config.registry import class_for
from audiobat.data.loader import ring_needs
from audiobat.engine.memory import FLOAT, Need, shortage
from audiobat.engine.ranks import Ranks, pick_precision
from audiobat.pretraining.cost import StepCost
from audiobat.pretraining.objectives.base import Objective, build_objective


@dataclass(frozen=True)
class Plan:
    """Counts per run and per step."""

    objective: str  # its class
    parameters: dict[str, int]  # that are trained, by part of the objective
    grid: tuple[int, int]  # patch columns and rows of a clip
    step: StepCost | None  # None where the objective does not say
    memory_bytes: float
    steps: int
    clips_seen: int
    hours_seen: float

    def __str__(self) -> str:
        columns, freq_patches = self.grid
        patches = f"{columns * freq_patches} a clip ({columns} in time x {freq_patches} in frequency)"
        lines = [(name, f"{count / 1e6:.2f}M parameters") for name, count in self.parameters.items()]
        if self.step is None:
            lines += [("patches", patches), ("compute", f"not counted: {self.objective} has no `cost`")]
        else:
            total = self.step.flops * self.steps / 1e15
            memory = f"{self.memory_bytes / 2**30:.1f} GiB over all ranks (weights, AdamW, teacher, clips, activations)"
            lines += [
                ("patches", f"{patches}, {self.step.visible} visible and {self.step.masked} masked in each clone"),
                ("tokens a step", ", ".join(f"{count:,} {name}" for name, count in self.step.tokens.items())),
                ("compute", f"{self.step.flops / 1e12:.3g} TFLOP a step, {total:,.3g} PFLOP in all"),
                ("memory", f"about {memory}"),
            ]
        lines.append(
            ("length", f"{self.steps:,} steps, {self.clips_seen:,} clips, {self.hours_seen:,.1f} hours of audio")
        )
        return "\n".join(f"{name:>14}  {value}" for name, value in lines)


def shortage_of(config: PretrainConfig, ranks: Ranks, objective: Objective | None = None) -> str | None:
    """A sentence on what is too large if a rank's machine lacks the memory for a step; None if it may have it.

    Nothing is built for it, so that no size is too large to be refused. Half of the activations count, too, once the
    `objective` is there to say them: kernels of a GPU, and torch.compile, keep less than a `StepCost`.
    """
    clips = -(-config.train.batch_size // ranks.world_size)
    needs: list[Need] = class_for(config.objective).needs(config, clips)
    step = None if objective is None else objective.cost()
    if step is not None:
        value = FLOAT if pick_precision(config.train.precision, ranks.device) is None else FLOAT // 2
        kept = step.kept * value / 2 / ranks.world_size
        needs.append(Need("activations", kept, "train.accumulate or train.recompute"))
    samples = round(config.data.clip_seconds * config.frontend.sample_rate)
    return shortage("A step", needs, ranks.device, ring_needs(config.data.workers, clips, samples))


def make_plan(config: PretrainConfig, bytes_per_value: int = 2) -> Plan:
    """Count what `config` asks for; activations take `bytes_per_value` (2 for bf16, 4 for fp32)."""
    objective = build_objective(config)
    step = objective.cost()
    parameters = {}
    for name, part in objective.named_children():
        trained = sum(p.numel() for p in part.parameters() if p.requires_grad)
        if trained:
            parameters["encoder" if part is objective.encoder else name] = trained
    # A trained weight comes with its gradient and AdamW's two moments; a frozen one, such as the teacher's, alone.
    copies = sum(p.numel() * (4 if p.requires_grad else 1) for p in objective.parameters())
    counted = sum(need.bytes for need in objective.needs(config, config.train.batch_size))  # clips and masks, too
    seen = config.train.steps * config.train.batch_size
    return Plan(
        objective=type(objective).__name__,
        parameters=parameters,
        grid=config.crop_grid,
        step=step,
        memory_bytes=max(FLOAT * copies, counted) + (step.kept * bytes_per_value if step else 0),
        steps=config.train.steps,
        clips_seen=seen,
        hours_seen=seen * config.data.clip_seconds / 3600,
    )
