"""Every setting of the project as frozen dataclasses; every ablation of the paper is one field, checked on creation.

Defaults are the paper's (Table 6); where the paper is silent, its authors' release decides. A default that comes from
neither says so.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from audiobat.errors import AudiobatError, did_you_mean

T = TypeVar("T")

LARGEST = 2**63 - 1  # whole number that torch takes


def check(condition: bool, name: str, value: object, mend: str) -> None:
    """Raise an AudiobatError that names the field `name`, its value and the mend unless `condition` holds."""
    if not condition:
        raise AudiobatError(f"{name} is {value!r}: {mend}.")


def check_choice(owner: object, name: str) -> None:
    """Check that the Literal field `name` of `owner` holds one of its choices."""
    check_one_of(get_args(get_type_hints(type(owner))[name]), f"{type(owner).__name__}.{name}", getattr(owner, name))


def check_one_of(choices: tuple[Any, ...], name: str, value: object) -> None:
    """Check that the field `name` holds one of its choices."""
    hint = did_you_mean(str(value), choices)
    check(value in choices, name, value, f"choose one of {', '.join(map(str, choices))}{hint}")


def warmup_mend(name: str, steps: int) -> str:
    """What to do where a warm-up, the field `name`, is no shorter than the training."""
    return f"it must end before train.steps {steps}: set it too, --{name} {steps // 10} for a tenth"


FRONTEND_OWN: dict[str, dict[str, tuple[Any, Any]]] = {  # by kind: what stands for the kind's own value, and that
    "mel_db": {"n_fft": (0, 1024), "win_length": (0, 1024), "f_min": (-1.0, 0.0), "norm": ("auto", "minmax")},
    "kaldi_fbank": {"n_fft": (0, 512), "win_length": (0, 400), "f_min": (-1.0, 20.0), "norm": ("auto", "global")},
}

Statistics = Literal[
    "auto",
    "audioset_eat",
    "esc50_eat",
    "speech_commands_eat",
    "audioset_mae",
    "esc50_mae",
    "speech_commands_mae",
    "audioset_released",
    "esc50_released",
    "speech_commands_released",
    "librispeech_released",
    "birdset_released",
    "dcase2016_released",
]
STATISTICS: dict[str, tuple[float, float]] = {  # mean and std of a data set's log-mel, as kaldi_fbank computes it
    # EAT: all of its pre-training, and each set it is fine-tuned on
    "audioset_eat": (-4.268, 4.569),
    "esc50_eat": (-6.627, 5.359),
    "speech_commands_eat": (-6.846, 5.565),
    # the same with all digits, as the code of Audio-MAE and of SSLAM has them
    "audioset_mae": (-4.2677393, 4.5689974),
    "esc50_mae": (-6.6268077, 5.358466),
    "speech_commands_mae": (-6.845978, 5.5654526),
    # BAT's release: computed anew by its authors, for the models with EAT's frontend that they compare BAT with
    "audioset_released": (-4.5986, 4.3574),
    "esc50_released": (-6.8541, 5.3977),
    "speech_commands_released": (-9.0342, 4.5730),
    "librispeech_released": (-7.3293, 4.0610),
    "birdset_released": (-8.5505, 4.0453),
    "dcase2016_released": (-10.6859, 2.0616),  # Task 2
}  # those of BEATs are in its own frontend (convert/beats_encoder.py): of 16-bit numbers and another window


def pick_statistics(name: str, mean: float | None, std: float | None, own: tuple[float, float]) -> tuple[float, float]:
    """The mean and std that preset `name` and explicit values ask for; `own` where neither does.

    Raises AudiobatError for an explicit value that the preset contradicts, and for a std that is not positive.
    """
    preset = own if name == "auto" else STATISTICS[name]
    for field_name, value, named in zip(("mean", "std"), (mean, std), preset, strict=True):
        agrees = name == "auto" or value is None or value == named
        check(agrees, f"frontend.{field_name}", value, f"frontend.statistics {name} has {named}; give one or the other")
    chosen = preset[0] if mean is None else mean, preset[1] if std is None else std
    check(chosen[1] > 0, "frontend.std", chosen[1], "it must be positive")
    return chosen


@dataclass(frozen=True)
class FrontendConfig:
    """Waveform to spectrogram (Section 5.1, Table 2).

    0, -1 and auto stand for the kind's own: mel_db has windows of 1024 samples, bins from 0 Hz and each clip's own
    minimum and maximum; kaldi_fbank is EAT's, with windows of 400 in an FFT of 512, bins from 20 Hz and global
    statistics. They are resolved on creation, and so are mean and std, which null leaves to `statistics`.
    """

    kind: Literal["mel_db", "kaldi_fbank"] = "mel_db"
    sample_rate: int = 16_000
    n_fft: int = 0
    win_length: int = 0
    hop_length: int = 160
    mel_bins: int = 128
    f_min: float = -1.0
    f_max: float | None = None  # None: the Nyquist frequency
    top_db: float = 80.0  # dynamic range of mel_db, below each clip's own maximum
    norm: Literal["auto", "minmax", "global"] = "auto"
    statistics: Statistics = "auto"  # whose mean and std norm "global" takes; auto: those given, else audioset_eat
    mean: float | None = None  # used as (x - mean) / (2 std)
    std: float | None = None

    def __post_init__(self) -> None:
        check_choice(self, "kind")
        check_choice(self, "norm")
        check_choice(self, "statistics")
        for name, (unset, own) in FRONTEND_OWN[self.kind].items():
            if getattr(self, name) == unset:
                object.__setattr__(self, name, own)
        check(self.sample_rate > 0, "frontend.sample_rate", self.sample_rate, "it must be positive")
        check(self.hop_length > 0, "frontend.hop_length", self.hop_length, "it must be positive")
        check(self.mel_bins > 0, "frontend.mel_bins", self.mel_bins, "it must be positive")
        check(self.n_fft <= 65_536, "frontend.n_fft", self.n_fft, "use at most 65536 samples")
        check(0 < self.win_length <= self.n_fft, "frontend.win_length", self.win_length, "use 1 to n_fft samples")
        check(self.f_min >= 0, "frontend.f_min", self.f_min, "it must not be negative")
        nyquist = self.sample_rate / 2
        top = self.f_max if self.f_max is not None else nyquist
        check(
            self.f_min < top <= nyquist, "frontend.f_max", self.f_max, f"use more than f_min and at most {nyquist} Hz"
        )
        check(self.top_db > 0, "frontend.top_db", self.top_db, "it must be positive")
        mean, std = pick_statistics(self.statistics, self.mean, self.std, STATISTICS["audioset_eat"])
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "std", std)

    @property
    def moments(self) -> tuple[float, float]:
        """Mean and std, which are numbers once the config is made."""
        assert self.mean is not None
        assert self.std is not None
        return self.mean, self.std


@dataclass(frozen=True)
class StatisticsConfig:
    """Mean and std that a model's frontend takes in place of its own, if its norm is global; others need none."""

    statistics: Statistics = "auto"  # whose; auto: those given, else the model's own
    mean: float | None = None
    std: float | None = None

    def __post_init__(self) -> None:
        check_choice(self, "statistics")
        mean, std = pick_statistics(self.statistics, self.mean, self.std, (0.0, 1.0))
        if self.statistics != "auto":
            object.__setattr__(self, "mean", mean)
            object.__setattr__(self, "std", std)

    def apply(self, frontend: FrontendConfig) -> FrontendConfig:
        """The model's frontend with these, if it asks for any."""
        if frontend.norm != "global" or (self.mean is None and self.std is None):
            return frontend
        mean, std = pick_statistics("auto", self.mean, self.std, frontend.moments)
        return dataclasses.replace(frontend, statistics=self.statistics, mean=mean, std=std)


@dataclass(frozen=True)
class KaldiFrontendConfig(FrontendConfig):
    """EAT's, unless told otherwise."""

    kind: Literal["mel_db", "kaldi_fbank"] = "kaldi_fbank"


@dataclass(frozen=True)
class PrepareConfig:
    """What `audiobat prepare --stats` looks at clips through."""

    frontend: KaldiFrontendConfig = field(default_factory=KaldiFrontendConfig)


@dataclass(frozen=True)
class EncoderConfig:
    """The gated post-norm ViT (Eq. 1-4, 12-14)."""

    dim: int = 768
    depth: int = 12
    heads: int = 12
    mlp_ratio: float = 4.0
    patch_size: tuple[int, int] = (16, 16)  # frames x mel bins
    max_frames: int = 1024  # length of the position table; longer clips run in windows of this many frames
    gated_attention: bool = True
    gate_bias: bool = True  # the release's; the paper shows a weight only
    drop_path: float = 0.0
    block_norm: Literal["post", "pre"] = "post"  # pre: before attention and MLP, and none of the stem (Audio-MAE)
    final_norm: bool = False  # of the last block's output; only Audio-MAE has one
    pad: Literal["mask", "grid"] = "mask"  # grid: every clip padded to max_frames, padding attended to (released BAT)
    init: Literal["xavier", "eat"] = "xavier"  # eat: linear layers from N(0, 0.02), cls from N(0, 1)

    def __post_init__(self) -> None:
        check_choice(self, "pad")
        check_choice(self, "block_norm")
        check_choice(self, "init")
        object.__setattr__(self, "patch_size", tuple(self.patch_size))
        for name in ("dim", "depth", "heads"):
            check(getattr(self, name) > 0, f"encoder.{name}", getattr(self, name), "it must be positive")
        check(self.mlp_ratio > 0, "encoder.mlp_ratio", self.mlp_ratio, "it must be positive")
        check(self.dim % self.heads == 0, "encoder.heads", self.heads, f"it must divide encoder.dim {self.dim}")
        check(self.dim % 4 == 0, "encoder.dim", self.dim, "2-D positions need a multiple of 4")
        valid_patch = len(self.patch_size) == 2 and min(self.patch_size) > 0
        check(valid_patch, "encoder.patch_size", self.patch_size, "give two positive numbers, frames and mel bins")
        check(
            self.max_frames > 0 and self.max_frames % self.patch_size[0] == 0,
            "encoder.max_frames",
            self.max_frames,
            f"it must be a positive multiple of the patch's {self.patch_size[0]} frames",
        )
        check(0 <= self.drop_path < 1, "encoder.drop_path", self.drop_path, "use 0 up to, not including, 1")


@dataclass(frozen=True)
class ModelConfig:
    """What a release folder needs to rebuild its encoder."""

    frontend: FrontendConfig = field(default_factory=FrontendConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)

    def __post_init__(self) -> None:
        check(
            self.frontend.mel_bins % self.encoder.patch_size[1] == 0,
            "frontend.mel_bins",
            self.frontend.mel_bins,
            f"it must be a multiple of the patch's {self.encoder.patch_size[1]} mel bins",
        )

    @property
    def grid(self) -> tuple[int, int]:
        """Patch columns and rows of the position table, (T, F)."""
        return (
            self.encoder.max_frames // self.encoder.patch_size[0],
            self.frontend.mel_bins // self.encoder.patch_size[1],
        )


@dataclass(frozen=True)
class MaskConfig:
    """Masks for M clones (Section 3; EAT's constants)."""

    kind: Literal["inverse_block", "random"] = "inverse_block"
    ratio: float = 0.8
    clones: int = 16
    block_size: int = 5  # side of a visible block, in patches
    adjust: float = 0.07  # share of patches added to the expected block area before blocks are counted

    def __post_init__(self) -> None:
        check_choice(self, "kind")
        check(0 < self.ratio < 1, "mask.ratio", self.ratio, "use a share between 0 and 1")
        check(self.clones > 0, "mask.clones", self.clones, "it must be positive")
        check(self.block_size > 0, "mask.block_size", self.block_size, "it must be positive")
        check(self.adjust >= 0, "mask.adjust", self.adjust, "it must not be negative")


@dataclass(frozen=True)
class DecoderConfig:
    """Visible tokens to predictions at the masked cells (Section 5.3, Table 4). Its width is the encoder's."""

    kind: Literal["vit", "cnn"] = "vit"
    depth: int = 6
    heads: int = 12
    mlp_ratio: float = 4.0
    kernel_size: int = 3  # cnn only, EAT's
    groups: int = 16  # cnn only, EAT's

    def __post_init__(self) -> None:
        check_choice(self, "kind")
        for name in ("depth", "heads", "mlp_ratio", "groups"):
            check(getattr(self, name) > 0, f"decoder.{name}", getattr(self, name), "it must be positive")
        odd = self.kernel_size > 0 and self.kernel_size % 2 == 1
        check(odd, "decoder.kernel_size", self.kernel_size, "it must be positive and odd")


@dataclass(frozen=True)
class TargetConfig:
    """What the student predicts (Section 3, Table 3): a layer output of its EMA teacher, or the spectrogram itself."""

    source: Literal["block", "mlp", "spectrogram"] = "block"  # spectrogram: patches of it, no teacher (Audio-MAE)
    layers: int | None = None  # average the top `layers` blocks; None: all
    cls_layers: int | None = None  # the same for the cls token's target; None: as `layers`
    norm_eps: float = 1e-6  # of the targets' normalisation; EAT: 1e-5
    ema_start: float = 0.9998
    ema_end: float = 0.99999
    ema_steps: int = 100_000

    def __post_init__(self) -> None:
        check_choice(self, "source")
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

    global_weight: float = 1.0
    retention_weight: float = 0.0  # SSLAM's loss on clips mixed with others; 0: nothing is mixed
    scale: float = 1.0  # EAT's sums over features amount to sqrt(768); AdamW does not see it, gradient clipping does

    def __post_init__(self) -> None:
        for name in ("global_weight", "retention_weight"):
            check(getattr(self, name) >= 0, f"objective.{name}", getattr(self, name), "it must not be negative")
        check(self.scale > 0, "objective.scale", self.scale, "it must be positive")


@dataclass(frozen=True)
class OptimConfig:
    """AdamW with linear warm-up and cosine decay (Table 6)."""

    lr: float = 5e-4
    min_lr: float = 1e-6  # also where the warm-up starts
    warmup_steps: int = 53_000
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)
    decay_1d: bool = True  # decay biases, norms and tokens too, as EAT and the release do
    grad_clip: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(self.betas))
        check(self.lr > 0, "optim.lr", self.lr, "it must be positive")
        check(0 <= self.min_lr <= self.lr, "optim.min_lr", self.min_lr, "use 0 up to optim.lr")
        check(self.warmup_steps >= 0, "optim.warmup_steps", self.warmup_steps, "it must not be negative")
        check(self.weight_decay >= 0, "optim.weight_decay", self.weight_decay, "it must not be negative")
        valid_betas = len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas)
        check(valid_betas, "optim.betas", self.betas, "give two numbers from 0 up to 1")
        valid_clip = self.grad_clip is None or self.grad_clip > 0
        check(valid_clip, "optim.grad_clip", self.grad_clip, "use a positive norm or null")


@dataclass(frozen=True)
class DataConfig:
    """Which clips, and how a training crop is cut from one."""

    path: str | None = None  # a folder, CSV, Parquet file, prepared shards, or NAME:FOLDER of a public data set
    clip_seconds: float = 10.24  # fills the 1,024 frames; what is missing of a 10-s clip is masked padding
    roll: bool = False  # circular roll of the waveform (the release's; the paper names none)
    balance: str | None = None  # column drawn evenly, or labels (A56: mean of 1/count) | labels_sum (EAT's); None: all
    epoch_clips: int | None = None  # draws per epoch (AS-2M fine-tuning: 200,000); None: as many as there are clips
    replacement: bool = True  # whether balanced draws may repeat a clip within an epoch
    workers: int = 2

    def __post_init__(self) -> None:
        check(self.clip_seconds > 0, "data.clip_seconds", self.clip_seconds, "it must be positive")
        some = self.epoch_clips is None or self.epoch_clips > 0
        check(some, "data.epoch_clips", self.epoch_clips, "use a positive number or null")
        check(self.workers >= 0, "data.workers", self.workers, "it must not be negative")


@dataclass(frozen=True)
class NoiseConfig:
    """Coloured noise on the waveform (Table 6, "Noise Augmentation"; what kind, the release says)."""

    probability: float = 0.0  # of each clip
    snr_db: tuple[float, float] = (5.0, 25.0)  # lowest and highest ratio of a clip's power to the noise's
    exponent: tuple[float, float] = (-2.0, 2.0)  # power falls as 1 / f^exponent: violet to brown; neither source says

    def __post_init__(self) -> None:
        check(0 <= self.probability <= 1, "augment.noise.probability", self.probability, "use 0 to 1")
        for name, limit in (("snr_db", 100), ("exponent", 4)):
            object.__setattr__(self, name, tuple(getattr(self, name)))
            span = getattr(self, name)
            ordered = len(span) == 2 and -limit <= span[0] <= span[1] <= limit
            check(ordered, f"augment.noise.{name}", span, f"give two numbers from {-limit} to {limit}, the lower first")


@dataclass(frozen=True)
class MixupConfig:
    """lambda x_i + (1 - lambda) x_j, for inputs and targets alike, with lambda ~ Beta(beta, beta)."""

    probability: float = 0.0  # of mixing at all: of each clip (sample), or of the whole batch (batch)
    beta: float = 0.8
    per: Literal["sample", "batch"] = "sample"  # sample: the release's; batch: one lambda, partners in reverse (EAT's)

    def __post_init__(self) -> None:
        check_choice(self, "per")
        check(0 <= self.probability <= 1, "augment.mixup.probability", self.probability, "use 0 to 1")
        check(0 < self.beta < math.inf, "augment.mixup.beta", self.beta, "it must be positive")


@dataclass(frozen=True)
class SpecAugmentConfig:
    """Stripes of the spectrogram that are blanked out; each one's width is uniform from 0 to the widest."""

    time_width: float = 0.0  # the widest stripe of frames; 0: none
    frequency_width: float = 0.0  # the widest stripe of mel bins; 0: none
    unit: Literal["fraction", "absolute"] = "fraction"  # of a clip's own frames and of all bins; or frames and bins
    time_masks: int = 1
    frequency_masks: int = 1
    fill: float = 0.0  # EAT's; under norm "minmax" the floor, under "global" near the mean

    def __post_init__(self) -> None:
        check_choice(self, "unit")
        for name in ("time_width", "frequency_width"):
            width = getattr(self, name)
            if self.unit == "fraction":
                check(0 <= width <= 1, f"augment.spec_augment.{name}", width, "use 0 to 1 of the axis")
            else:
                whole = 0 <= width <= LARGEST and width == int(width)
                check(whole, f"augment.spec_augment.{name}", width, "use a whole number, 0 or more")
        for name in ("time_masks", "frequency_masks"):
            check(getattr(self, name) > 0, f"augment.spec_augment.{name}", getattr(self, name), "it must be positive")
        check(math.isfinite(self.fill), "augment.spec_augment.fill", self.fill, "it must be finite")


@dataclass(frozen=True)
class AugmentConfig:
    """What training changes about its clips, in the order of application; nothing unless asked for."""

    roll: bool = False  # turn a clip's samples circularly by a uniform amount
    gain_beta: float | None = None  # multiply the waveform by 0.5 + Beta(gain_beta, gain_beta); EAT: 10
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    cell_noise: float = 0.0  # add U[0, 1) to each spectrogram cell, times one U[0, cell_noise) a clip; EAT's SPC-2: 0.1
    time_roll: tuple[int, int] | None = None  # turn a clip's frames circularly by a uniform amount, both ends included
    mixup: MixupConfig = field(default_factory=MixupConfig)
    spec_augment: SpecAugmentConfig = field(default_factory=SpecAugmentConfig)

    def __post_init__(self) -> None:
        some = self.gain_beta is None or 0 < self.gain_beta < math.inf
        check(some, "augment.gain_beta", self.gain_beta, "use a positive number or null")
        check(0 <= self.cell_noise < math.inf, "augment.cell_noise", self.cell_noise, "it must not be negative")
        if self.time_roll is not None:
            object.__setattr__(self, "time_roll", tuple(self.time_roll))
            ordered = len(self.time_roll) == 2 and -LARGEST <= self.time_roll[0] <= self.time_roll[1] < LARGEST
            check(ordered, "augment.time_roll", self.time_roll, "give two whole numbers, the lower first, or null")


@dataclass(frozen=True)
class TrainConfig:
    """Length, batch and housekeeping of a run."""

    steps: int = 400_000
    batch_size: int = 48  # clips per step over all ranks
    seed: int = 0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    device: str = "auto"
    log_every: int = 50
    save_every: int = 2_000
    keep: int = 2  # newest checkpoints kept

    def __post_init__(self) -> None:
        check_choice(self, "precision")
        for name in ("steps", "batch_size", "log_every", "save_every", "keep"):
            check(getattr(self, name) > 0, f"train.{name}", getattr(self, name), "it must be positive")
        check(0 <= self.seed <= LARGEST, "train.seed", self.seed, "use 0 up to 2^63 - 1")


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
    init: str | None = None  # a model with whose encoder student and teacher begin, such as SSLAM's first stage

    def __post_init__(self) -> None:
        _ = self.model  # the patch grid must fit the mel bins
        depth = self.encoder.depth
        for name in ("layers", "cls_layers"):
            layers = getattr(self.target, name)
            check(layers is None or layers <= depth, f"target.{name}", layers, f"the encoder has {depth} blocks")
        teacherless = self.target.source == "spectrogram"
        for name in ("global_weight", "retention_weight") if teacherless else ():
            weight = getattr(self.objective, name)
            check(weight == 0, f"objective.{name}", weight, "target.source spectrogram has no teacher: use 0")
        divides = self.encoder.dim % (self.decoder.heads if self.decoder.kind == "vit" else self.decoder.groups) == 0
        check(
            divides,
            "decoder",
            self.decoder,
            f"its heads (vit) or groups (cnn) must divide encoder.dim {self.encoder.dim}",
        )
        longest = self.encoder.max_frames * self.frontend.hop_length / self.frontend.sample_rate
        seconds = self.data.clip_seconds
        check(seconds <= longest, "data.clip_seconds", seconds, f"encoder.max_frames holds {longest:g} s")
        columns, rows = self.crop_grid
        enough = columns * rows >= 2
        check(enough, "data.clip_seconds", seconds, "such a clip is a single patch, and nothing of it would be visible")
        steps = self.train.steps
        warm = self.optim.warmup_steps < steps
        name = "optim.warmup_steps"
        check(warm, name, self.optim.warmup_steps, warmup_mend(name, steps))

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

    @property
    def target_width(self) -> int:
        """Numbers that the decoder predicts for each masked cell."""
        frames, bins = self.encoder.patch_size
        return frames * bins if self.target.source == "spectrogram" else self.encoder.dim


@dataclass(frozen=True)
class HeadConfig:
    """Which probe sits on the frozen features (Section 4)."""

    kind: Literal[
        "cgp",
        "protobin",
        "linear",
        "linear_cgp",
        "attentive",
        "ep",
        "head2toe",
        "vqt",
        "proto_classwise",
        "knn",
        "mean_time_keep_freq",
    ] = "cgp"
    prototypes: int = 10_000  # cgp and protobin
    dropout: float = 0.0  # the release: 0.2
    layer: int = -1  # the block to read, 1..L or -1 for the last; cgp, linear_cgp, head2toe and vqt read all
    pool: Literal["auto", "cls", "mean"] = "auto"  # linear, linear_cgp, head2toe, knn; auto: cls if there is one
    norm: Literal["none", "layer", "batch"] = "none"  # before the classifier; attentive: of tokens; unscaled
    queries: int | None = None  # None: ep 32 in all, vqt 10 a block
    reduction: int = 1  # ep: values are this many times narrower than the model
    per_class: int = 20  # proto_classwise: prototypes of each class
    penalty: float | None = None  # weight of head2toe's lasso (None: 1e-4), of proto_classwise's orthogonality (1)
    neighbours: int = 20  # knn
    temperature: float = 0.07  # knn

    def __post_init__(self) -> None:
        for name in ("kind", "pool", "norm"):
            check_choice(self, name)
        for name in ("prototypes", "reduction", "per_class", "neighbours", "temperature"):
            check(getattr(self, name) > 0, f"head.{name}", getattr(self, name), "it must be positive")
        check(self.queries is None or self.queries > 0, "head.queries", self.queries, "use a positive number or null")
        valid_penalty = self.penalty is None or self.penalty >= 0
        check(valid_penalty, "head.penalty", self.penalty, "use 0, a positive weight, or null")
        check(0 <= self.dropout < 1, "head.dropout", self.dropout, "use 0 up to, not including, 1")
        check(self.layer == -1 or self.layer >= 1, "head.layer", self.layer, "use 1 to the number of blocks, or -1")


PASSIVE_HEADS = ("vqt", "knn")  # one asks frozen blocks, the other remembers clips: neither gives a model gradients


@dataclass(frozen=True)
class TaggerConfig:
    """What a release keeps of the head that sits on its encoder."""

    head: HeadConfig = field(default_factory=HeadConfig)
    classes: tuple[str, ...] = ()  # names in the order of the logits
    task: Literal["clip", "frame"] = "clip"  # what the head was trained to label
    multi_label: bool = True  # several classes may be there at once: sigmoid, else softmax

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))
        check_choice(self, "task")
        check(len(self.classes) > 0, "tagger.classes", self.classes, "name at least one class")
        check(len(set(self.classes)) == len(self.classes), "tagger.classes", self.classes, "name each class once")
        kind = self.head.kind
        check(kind not in PASSIVE_HEADS, "head.kind", kind, "it cannot be kept with a model; choose another")


@dataclass(frozen=True)
class ProbeTrainConfig:
    """How a head is trained (Table 6, AS-20K column)."""

    steps: int = 20_000
    warmup_steps: int = 2_000
    batch_size: int = 48
    lr: float = 1e-3
    min_lr: float = 1e-6
    weight_decay: float | None = None  # None: the paper's 0.5 for prototype heads, 0.005 for linear ones
    betas: tuple[float, float] = (0.9, 0.999)
    loss: Literal["auto", "bce", "ce", "asl"] = "auto"  # auto: ce if every clip has one label, else bce; asl: released
    seed: int = 0  # of weights and dropout
    order_seed: int = 0  # of the order of clips: heads share a pass over them, so their own seeds have no say in it

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(self.betas))
        check_choice(self, "loss")
        for name in ("steps", "batch_size", "lr"):
            check(getattr(self, name) > 0, f"train.{name}", getattr(self, name), "it must be positive")
        check(self.warmup_steps >= 0, "train.warmup_steps", self.warmup_steps, "it must not be negative")
        check(0 <= self.min_lr <= self.lr, "train.min_lr", self.min_lr, "use 0 up to train.lr")
        valid_decay = self.weight_decay is None or self.weight_decay >= 0
        check(valid_decay, "train.weight_decay", self.weight_decay, "it must not be negative")
        valid_betas = len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas)
        check(valid_betas, "train.betas", self.betas, "give two numbers from 0 up to 1")
        for name in ("seed", "order_seed"):
            check(0 <= getattr(self, name) <= LARGEST, f"train.{name}", getattr(self, name), "use 0 up to 2^63 - 1")


@dataclass(frozen=True)
class GridConfig:
    """Values tried side by side, each with each; an empty list: the one value of `head` or `train`."""

    prototypes: tuple[int, ...] = ()  # of the heads that have prototypes
    lr: tuple[float, ...] = ()
    weight_decay: tuple[float, ...] = ()
    choose: bool = False  # lr and weight decay: keep the best on a held-out tenth of the training split

    def __post_init__(self) -> None:
        for name in ("prototypes", "lr", "weight_decay"):
            values = tuple(getattr(self, name))
            object.__setattr__(self, name, values)
            check(len(set(values)) == len(values), f"grid.{name}", values, "name each value once")
        check(min(self.prototypes, default=1) > 0, "grid.prototypes", self.prototypes, "they must be positive")
        check(min(self.lr, default=1.0) > 0, "grid.lr", self.lr, "they must be positive")
        check(min(self.weight_decay, default=0.0) >= 0, "grid.weight_decay", self.weight_decay, "none may be negative")
        several = len(self.lr) > 1 or len(self.weight_decay) > 1
        check(several or not self.choose, "grid.choose", self.choose, "give several grid.lr or grid.weight_decay")


@dataclass(frozen=True)
class ProbeConfig:
    """Which heads are trained, how, on which features. All of them share one pass over the clips."""

    head: HeadConfig = field(default_factory=HeadConfig)
    train: ProbeTrainConfig = field(default_factory=ProbeTrainConfig)
    grid: GridConfig = field(default_factory=GridConfig)
    heads: tuple[str, ...] = ()  # kinds trained side by side, each otherwise as `head`; none: `head` alone
    layers: bool = False  # besides, a linear probe of every block: its mean patch, batch norm, a matrix (Fig. 4)
    seeds: tuple[int, ...] = ()  # one record for each; none: `train.seed` alone
    task: Literal["auto", "clip", "frame"] = "auto"  # what has labels; auto: frames where the clips have events
    preset: Literal["paper", "released", "fair"] = "paper"  # whose settings these are meant to be; records check it
    preset_task: str | None = None  # column of the preset's table; None: by the data set's name, else as20k
    cache_gb: float = 8.0  # memory for frozen features; more than that, up to 64 GB and half of what is free, go to
    # OUT/features, and what fits neither is computed again for every batch; 0: always again
    cache_dir: str | None = None  # keep them in this folder instead, for later runs too; None: in memory
    workers: int = 2  # processes that decode audio ahead of the encoder
    frontend: StatisticsConfig = field(default_factory=StatisticsConfig)
    max_frames: int | None = None  # of a window, at most; the release pads ESC-50 to 512. null: the model's own

    def __post_init__(self) -> None:
        for name in ("heads", "seeds"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("task", "preset"):
            check_choice(self, name)
        kinds = get_args(get_type_hints(HeadConfig)["kind"])
        for kind in self.heads:
            check_one_of(kinds, "heads", kind)
            dataclasses.replace(self.head, kind=kind)  # type: ignore[arg-type]  # its other settings must suit it
        for name in ("heads", "seeds"):
            values = getattr(self, name)
            check(len(set(values)) == len(values), name, values, "name each once")
        for seed in self.seeds:
            check(0 <= seed <= LARGEST, "seeds", self.seeds, "use 0 up to 2^63 - 1")
        check(self.cache_gb >= 0, "cache_gb", self.cache_gb, "it must not be negative")
        some = self.max_frames is None or self.max_frames > 0
        check(some, "max_frames", self.max_frames, "use a positive number or null")
        check(self.workers >= 0, "workers", self.workers, "it must not be negative")


@dataclass(frozen=True)
class FinetuneOptimConfig(OptimConfig):
    """AdamW, its schedule, and how much slower deeper layers learn (Table 6, AS-20K column)."""

    lr: float = 5e-5  # of the head
    warmup_steps: int = 4_000
    layer_decay: float = 0.75  # rate of a layer relative to the one above it
    layer_map: Literal["standard", "eat"] = "standard"  # the patch embedding is the deepest layer; or as fast as the
    # head, and min_lr is one for all layers (eat)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "layer_map")
        check(0 < self.layer_decay <= 1, "optim.layer_decay", self.layer_decay, "use more than 0, up to 1")


@dataclass(frozen=True)
class FinetuneTrainConfig(TrainConfig):
    """Length, batch, loss and regularisation (Table 6, AS-20K column)."""

    steps: int = 40_000
    loss: Literal["auto", "bce", "ce", "asl"] = "auto"  # auto: ce if every clip has one label, else bce; asl: released
    label_smoothing: float = 0.0  # share of each target that is spread over all classes
    drop_path: float = 0.1  # of the last block; from 0 at the first, evenly
    freeze_steps: int = 0  # first the head alone learns, for this long; neither source does so
    ema_decay: float | None = None  # test and keep a moving average of the weights, of this decay; neither source does

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "loss")
        check(0 <= self.label_smoothing < 1, "train.label_smoothing", self.label_smoothing, "use 0 up to 1")
        check(0 <= self.drop_path < 1, "train.drop_path", self.drop_path, "use 0 up to, not including, 1")
        inside = 0 <= self.freeze_steps < self.steps
        check(inside, "train.freeze_steps", self.freeze_steps, f"use 0 or more, and less than train.steps {self.steps}")
        valid_ema = self.ema_decay is None or 0 <= self.ema_decay < 1
        check(valid_ema, "train.ema_decay", self.ema_decay, "use 0 up to, not including, 1, or null")


@dataclass(frozen=True)
class SelectConfig:
    """Which weights a fine-tuning keeps. Both are tested and reported where there are validation clips."""

    which: Literal["last", "best"] = "last"  # of the last step, or of the best validation; the paper does not say
    every: int = 1_000  # steps between two validations; the last step has one, too
    held_out: float = 0.0  # share of the training clips that validate, where the data have no validation split

    def __post_init__(self) -> None:
        check_choice(self, "which")
        check(self.every > 0, "select.every", self.every, "it must be positive")
        check(0 <= self.held_out < 1, "select.held_out", self.held_out, "use 0 up to, not including, 1")


@dataclass(frozen=True)
class FinetuneConfig:
    """Everything that a fine-tuning depends on besides the model and the clips. Defaults: Table 6, AS-20K."""

    frontend: StatisticsConfig = field(default_factory=StatisticsConfig)
    head: HeadConfig = field(default_factory=lambda: HeadConfig(kind="linear", norm="layer"))  # EAT's; paper silent
    optim: FinetuneOptimConfig = field(default_factory=FinetuneOptimConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(
        default_factory=lambda: AugmentConfig(mixup=MixupConfig(0.9), spec_augment=SpecAugmentConfig(0.2, 0.2))
    )
    train: FinetuneTrainConfig = field(default_factory=FinetuneTrainConfig)
    select: SelectConfig = field(default_factory=SelectConfig)
    task: Literal["auto", "clip", "frame"] = "auto"  # what has labels; auto: frames where the clips have events
    keep_head: bool = False  # go on with the head that the model has, in place of a new one of `head`
    max_frames: int | None = None  # of a window, at most; EAT pads ESC-50 to 512. null: the model's own
    recipe: str | None = None  # which recipe these settings are meant to be; records check it

    def __post_init__(self) -> None:
        check_choice(self, "task")
        check(
            self.head.kind not in PASSIVE_HEADS, "head.kind", self.head.kind, "it cannot teach a model; choose another"
        )
        steps, warmup = self.train.steps, self.optim.warmup_steps
        check(warmup < steps, "optim.warmup_steps", warmup, warmup_mend("optim.warmup_steps", steps))
        check(not self.data.roll, "data.roll", self.data.roll, "fine-tuning has augment.roll")
        some = self.max_frames is None or self.max_frames > 0
        check(some, "max_frames", self.max_frames, "use a positive number or null")
        alone = self.head.norm == "batch" and self.train.batch_size == 1
        check(not alone, "train.batch_size", self.train.batch_size, "head.norm batch needs at least 2 clips per batch")


def to_dict(config: object) -> dict[str, Any]:
    """A config dataclass as plain nested dicts and lists, ready for YAML or JSON."""
    return {f.name: _plain(getattr(config, f.name)) for f in dataclasses.fields(config)}  # type: ignore[arg-type]


def _plain(value: Any) -> Any:
    """The value of a field without dataclasses and tuples."""
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    return list(value) if isinstance(value, tuple) else value


def from_dict(cls: type[T], values: object, where: str = "") -> T:
    """Build config `cls` from plain nested dicts; fields left out keep their defaults.

    Raises AudiobatError for an unknown field (naming the closest known one) or a value of the wrong type.
    """
    if not isinstance(values, Mapping):
        raise AudiobatError(f"{where or cls.__name__} is {values!r}: give its fields by name.")
    hints = get_type_hints(cls)
    known = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    kwargs: dict[str, Any] = {}
    for name, value in values.items():
        path = f"{where}.{name}" if where else str(name)
        if name not in known:
            raise AudiobatError(f"Unknown field {path}{did_you_mean(str(name), known)}.")
        kwargs[name] = _typed(hints[name], value, path)
    return cls(**kwargs)


def _typed(hint: Any, value: Any, path: str) -> Any:
    """Check `value` against the type of a field: dataclass, tuple, mapping, optional, Literal or a plain one."""
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value, path)  # type: ignore[arg-type]
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        check_one_of(args, path, value)
        return value
    if origin is UnionType:
        inner = next(a for a in args if a is not type(None))
        return None if value is None else _typed(inner, value, path)
    if origin is Mapping:
        check(isinstance(value, Mapping), path, value, "give values by name")
        return {str(name): _typed(args[1], v, f"{path}.{name}") for name, v in value.items()}
    if hint is Any:
        return value
    if origin is tuple:
        if args[-1] is Ellipsis:
            check(isinstance(value, list | tuple), path, value, "give a list")
            return tuple(_typed(args[0], v, path) for v in value)
        check(isinstance(value, list | tuple) and len(value) == len(args), path, value, f"give {len(args)} values")
        return tuple(_typed(a, v, path) for a, v in zip(args, value, strict=True))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    check(type(value) is hint, path, value, f"it must be of type {hint.__name__}")
    if hint is int:
        check(abs(value) <= LARGEST, path, value, "use less than 2^63")
    if hint is float:
        check(math.isfinite(value), path, value, "it must be finite")
    return value
