"""Pre-training: masks, decoder, targets and loss beside the model and its training; probes that watch it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from audiobat.config.checks import check, check_choice, warmup_hint
from audiobat.config.frontend import FrontendConfig
from audiobat.config.model import DEEPEST, EncoderConfig, ModelConfig
from audiobat.config.registry import check_kind, kind_field
from audiobat.config.training import DataConfig, OptimConfig, TrainConfig


@dataclass(frozen=True)
class MaskConfig:
    """Masks for M clones (Section 3; EAT's constants)."""

    kind: str = kind_field("mask", "inverse_block")
    ratio: float = 0.8  # share of the patches that the student does not get
    clones: int = 16  # masked copies of each clip
    block_size: int = 5  # side of a visible block, in patches
    adjust: float = 0.07  # share of patches added to the expected block area before blocks are counted
    trim: Literal["last", "random"] = "last"  # what is hidden again where blocks show too many patches: those of the
    # last blocks, so that the first stay whole; or random ones (EAT, the release); ours

    def __post_init__(self) -> None:
        check_kind("mask", self.kind)
        check_choice(self, "trim")
        check(0 < self.ratio < 1, "mask.ratio", self.ratio, "use a share between 0 and 1")
        check(self.clones > 0, "mask.clones", self.clones, "it must be positive")
        check(self.block_size > 0, "mask.block_size", self.block_size, "it must be positive")
        check(self.adjust >= 0, "mask.adjust", self.adjust, "it must not be negative")


@dataclass(frozen=True)
class DecoderConfig:
    """Visible tokens to predictions at the masked cells (Section 5.3, Table 4). Its width is the encoder's."""

    kind: str = kind_field("decoder", "vit")
    depth: int = 6  # blocks (vit) or convolutions (cnn)
    heads: int = 12
    mlp_ratio: float = 4.0
    kernel_size: int = 3  # cnn only, EAT's
    groups: int = 16  # cnn only, EAT's

    def __post_init__(self) -> None:
        check_kind("decoder", self.kind)
        check(0 < self.depth <= DEEPEST, "decoder.depth", self.depth, f"use 1 to {DEEPEST}")
        for name in ("heads", "mlp_ratio", "groups"):
            check(getattr(self, name) > 0, f"decoder.{name}", getattr(self, name), "it must be positive")
        odd = self.kernel_size > 0 and self.kernel_size % 2 == 1
        check(odd, "decoder.kernel_size", self.kernel_size, "it must be positive and odd")


@dataclass(frozen=True)
class TargetConfig:
    """What the student predicts (Section 3, Table 3): a layer output of its EMA teacher, or the spectrogram itself."""

    source: str = kind_field("target", "block")  # block, mlp: of the teacher; spectrogram: no teacher (Audio-MAE)
    layers: int | None = None  # average the top `layers` blocks; None: all
    cls_layers: int | None = None  # the same for the cls token's target; None: as `layers`
    norm_eps: float = 1e-6  # of the targets' normalisation; EAT: 1e-5
    ema_start: float = 0.9998  # decay of the teacher's average at first; EAT and BAT's release
    ema_end: float = 0.99999  # and from update `ema_steps` on; EAT and BAT's release
    ema_steps: int = 100_000  # updates in which it rises; EAT and BAT's release

    def __post_init__(self) -> None:
        check_kind("target", self.source, "target.source")
        for name in ("layers", "cls_layers"):
            value = getattr(self, name)
            check(value is None or value > 0, f"target.{name}", value, "use a positive number or null")
        check(self.norm_eps > 0, "target.norm_eps", self.norm_eps, "it must be positive")
        for name in ("ema_start", "ema_end"):
            check(0 <= getattr(self, name) <= 1, f"target.{name}", getattr(self, name), "use a decay from 0 to 1")
        check(self.ema_steps > 0, "target.ema_steps", self.ema_steps, "it must be positive")


@dataclass(frozen=True)
class ObjectiveConfig:
    """Eq. 5 with all terms as means: loss = scale * (local + global_weight * global + retention_weight * retention)."""

    kind: str = kind_field("objective", "masked_latent_regression")
    global_weight: float = 1.0
    retention_weight: float = 0.0  # SSLAM: each clip is mixed with another, too, and has to retain both; 0: no mixing
    retention_cells: Literal["all", "mixed"] = "all"  # of mixtures' masked cells: all (SSLAM's code), or those in mixed
    # columns (SSLAM in the words of the BAT paper)
    apart: bool = False  # clips that end in different patch columns run apart, masked over their own patches, so that
    # nothing is computed for padding; else all are as long as the longest of a batch, and masks show padding, too; ours
    scale: float = 1.0  # EAT's sums over features amount to sqrt(768); AdamW does not see it, gradient clipping does

    def __post_init__(self) -> None:
        check_kind("objective", self.kind)
        check_choice(self, "retention_cells")
        for name in ("global_weight", "retention_weight"):
            check(getattr(self, name) >= 0, f"objective.{name}", getattr(self, name), "it must not be negative")
        apart = not (self.apart and self.retention_weight)
        check(
            apart, "objective.apart", self.apart, "objective.retention_weight mixes clips of different lengths: use 0"
        )
        check(self.scale > 0, "objective.scale", self.scale, "it must be positive")


@dataclass(frozen=True)
class OnlineConfig:
    """Probes of the encoder in the midst of pre-training, on labelled clips; they change nothing of the run. Ours."""

    data: str | None = None  # labelled clips, as `probe --data` takes them, that the run does not train on; null: none
    every: int = 2_000  # steps between two probes of the encoder; there is one after the last step, too
    heads: tuple[str, ...] = ("knn", "cgp")  # kinds of heads
    clips: int = 250  # training clips of the heads, and as many test clips, at most; features of all are in memory
    prototypes: int = 200  # of cgp and protobin
    steps: int = 300  # in which a head is trained

    def __post_init__(self) -> None:
        object.__setattr__(self, "heads", tuple(self.heads))
        check(len(self.heads) > 0, "online.heads", self.heads, "name at least one kind")
        check(len(set(self.heads)) == len(self.heads), "online.heads", self.heads, "name each once")
        for kind in self.heads:
            check_kind("head", kind, "online.heads")
        for name in ("every", "clips", "prototypes", "steps"):
            check(getattr(self, name) > 0, f"online.{name}", getattr(self, name), "it must be positive")


@dataclass(frozen=True)
class PretrainConfig:
    """Everything that a pre-training run depends on."""

    frontend: FrontendConfig = field(default_factory=FrontendConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    mask: MaskConfig = field(default_factory=MaskConfig)
    target: TargetConfig = field(default_factory=TargetConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    online: OnlineConfig = field(default_factory=OnlineConfig)
    init: str | None = None  # begin with a model's encoder, and with what else the file or run holds: teacher, decoder
    init_optimizer: Literal["source", "new"] = "source"  # source: and with the state of a run's optimizer; new: without

    def __post_init__(self) -> None:
        check_choice(self, "init_optimizer")
        _ = self.model  # the patch grid must fit the mel bins
        depth = self.encoder.depth
        for name in ("layers", "cls_layers"):
            layers = getattr(self.target, name)
            check(layers is None or layers <= depth, f"target.{name}", layers, f"the encoder has {depth} blocks")
        longest = self.encoder.max_frames * self.frontend.hop_length / self.frontend.sample_rate
        seconds = self.data.clip_seconds
        check(seconds <= longest, "data.clip_seconds", seconds, f"encoder.max_frames holds {longest:g} s")
        columns, rows = self.crop_grid
        enough = columns * rows >= 2
        check(enough, "data.clip_seconds", seconds, "such a clip is a single patch, and nothing of it would be visible")
        steps = self.train.steps
        warm = self.optim.warmup_steps < steps
        name = "optim.warmup_steps"
        check(warm, name, self.optim.warmup_steps, warmup_hint(name, steps))

    @property
    def crop_grid(self) -> tuple[int, int]:
        """Patch columns and rows of a training crop, (T, F)."""
        columns, rows = self.model.grid
        if self.encoder.pad == "grid":
            return columns, rows
        frames = int(self.data.clip_seconds * self.frontend.sample_rate) // self.frontend.hop_length + 1
        return min(-(-frames // self.encoder.patch_size[0]), columns), rows

    @property
    def model(self) -> ModelConfig:
        """The part that a release keeps."""
        return ModelConfig(self.frontend, self.encoder)
