"""What a pre-training run will cost, from its config alone: parameters, tokens, FLOPs, memory, clips seen."""

from __future__ import annotations

from dataclasses import dataclass

from audiobat.config import PretrainConfig
from audiobat.pretraining.masking import visible_count
from audiobat.pretraining.mixing import mixed_count
from audiobat.pretraining.objective import MaskedLatentRegression


@dataclass(frozen=True)
class Plan:
    """Counts per run and per step; FLOPs count a multiply-add as two."""

    encoder_parameters: int
    decoder_parameters: int
    grid: tuple[int, int]
    visible: int
    masked: int
    student_tokens: int  # per step, cls included
    decoder_tokens: int
    teacher_tokens: int
    flops: float
    memory_bytes: float
    steps: int
    clips_seen: int
    hours_seen: float

    def __str__(self) -> str:
        columns, rows = self.grid
        shown = f"{self.visible} visible and {self.masked} masked in each clone"
        tokens = f"{self.student_tokens:,} student, {self.decoder_tokens:,} decoder, {self.teacher_tokens:,} teacher"
        total = self.flops * self.steps / 1e15
        memory = f"{self.memory_bytes / 2**30:.1f} GiB over all ranks (weights, AdamW, teacher, activations)"
        lines = [
            ("encoder", f"{self.encoder_parameters / 1e6:.2f}M parameters"),
            ("decoder", f"{self.decoder_parameters / 1e6:.2f}M parameters"),
            ("patches", f"{columns * rows} a clip ({columns} in time x {rows} in frequency), {shown}"),
            ("tokens a step", tokens),
            ("compute", f"{self.flops / 1e12:.3g} TFLOP a step, {total:,.3g} PFLOP in all"),
            ("memory", f"about {memory}"),
            ("length", f"{self.steps:,} steps, {self.clips_seen:,} clips, {self.hours_seen:,.1f} hours of audio"),
        ]
        return "\n".join(f"{name:>14}  {value}" for name, value in lines)


def make_plan(config: PretrainConfig, bytes_per_value: int = 2) -> Plan:
    """Count what `config` asks for; activations take `bytes_per_value` (2 for bf16, 4 for fp32)."""
    model = MaskedLatentRegression(config)
    encoder_parameters = sum(p.numel() for p in model.student.parameters())
    decoder_parameters = sum(p.numel() for p in model.decoder.parameters())
    grid = config.crop_grid
    patches = grid[0] * grid[1]
    visible = visible_count(patches, config.mask.ratio)
    clips = config.train.batch_size
    versions = 2 if config.objective.retention_weight else 1  # of a clip: itself, and a mixture
    clones = clips * config.mask.clones * versions
    encoder, decoder, dim = config.encoder, config.decoder, config.encoder.dim

    def blocks(rows: int, tokens: int, depth: int, ratio: float) -> float:
        linear = 2 * (4 + encoder.gated_attention + 2 * ratio) * dim**2
        return depth * rows * tokens * (linear + 4 * tokens * dim)

    student = blocks(clones, 1 + visible, encoder.depth, encoder.mlp_ratio)
    if decoder.kind == "vit":
        decode = blocks(clones, patches, decoder.depth, decoder.mlp_ratio)
        per_decoder_token = decoder.depth * (10 + 2 * decoder.mlp_ratio)
    else:
        decode = decoder.depth * clones * patches * 2 * decoder.kernel_size**2 * dim**2 / decoder.groups
        per_decoder_token = decoder.depth * 5
    decode += clones * (patches - visible) * 2 * dim * config.target_width
    embed = clips * patches * 2 * encoder.patch_size[0] * encoder.patch_size[1] * dim
    heard = [] if config.target.source == "spectrogram" else [1 + patches]  # tokens of a clip that the teacher hears
    if versions == 2:
        heard.append(1 + mixed_count(grid[0]) * grid[1])  # of the partner alone
    teacher = sum(blocks(clips, tokens, encoder.depth, encoder.mlp_ratio) + embed for tokens in heard)
    student_tokens, decoder_tokens = clones * (1 + visible), clones * patches
    held = student_tokens * encoder.depth * (10 + 2 * encoder.mlp_ratio) + decoder_tokens * per_decoder_token
    copies = 4 * (encoder_parameters + decoder_parameters) + (encoder_parameters if heard else 0)
    seen = config.train.steps * clips
    return Plan(
        encoder_parameters=encoder_parameters,
        decoder_parameters=decoder_parameters,
        grid=grid,
        visible=visible,
        masked=patches - visible,
        student_tokens=student_tokens,
        decoder_tokens=decoder_tokens,
        teacher_tokens=clips * sum(heard),
        flops=3 * (student + decode) + 2 * embed * versions + teacher,
        memory_bytes=4 * copies + held * dim * bytes_per_value,
        steps=config.train.steps,
        clips_seen=seen,
        hours_seen=seen * config.data.clip_seconds / 3600,
    )
