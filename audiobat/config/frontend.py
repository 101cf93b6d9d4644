"""Waveform to spectrogram: the settings of Table 2, and the statistics that data sets are known by."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from audiobat.config.checks import check, check_choice
from audiobat.config.registry import check_kind, kind_field

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

    kind: str = kind_field("frontend", "mel_db")
    sample_rate: int = 16_000
    n_fft: int = 0  # samples of an FFT; 1024 in BAT's release, 512 in EAT
    win_length: int = 0  # samples of a window; 1024 in BAT's release, 400 in EAT
    hop_length: int = 160  # samples from frame to frame; 10 ms, as in BAT's release and EAT
    mel_bins: int = 128
    f_min: float = -1.0  # Hz, of the lowest mel filter; 0 in BAT's release, 20 in EAT
    f_max: float | None = None  # Hz, of the highest mel filter; null is the Nyquist frequency, as in BAT's release
    pad_seconds: float | None = None  # shorter waveforms are padded with zeros to this, which count as theirs; ours
    top_db: float = 80.0  # dynamic range of mel_db, below each clip's own maximum; BAT's release
    norm: Literal["auto", "minmax", "global"] = "auto"
    statistics: Statistics = "auto"  # whose mean and std norm "global" takes; auto: those given, else audioset_eat
    mean: float | None = None  # used as (x - mean) / (2 std)
    std: float | None = None

    def __post_init__(self) -> None:
        check_kind("frontend", self.kind)
        check_choice(self, "norm")
        check_choice(self, "statistics")
        for name, (unset, own) in FRONTEND_OWN.get(self.kind, FRONTEND_OWN["mel_db"]).items():
            if getattr(self, name) == unset:
                object.__setattr__(self, name, own)
        rate, hop = self.sample_rate, self.hop_length
        check(0 < rate <= 10_000_000, "frontend.sample_rate", rate, "it must be positive, and at most 10 MHz")
        check(0 < hop <= rate, "frontend.hop_length", hop, "it must be positive, and at most a second")
        check(self.mel_bins > 0, "frontend.mel_bins", self.mel_bins, "it must be positive")
        check(self.n_fft <= 65_536, "frontend.n_fft", self.n_fft, "use at most 65536 samples")
        check(0 < self.win_length <= self.n_fft, "frontend.win_length", self.win_length, "use 1 to n_fft samples")
        check(self.f_min >= 0, "frontend.f_min", self.f_min, "it must not be negative")
        nyquist = self.sample_rate / 2
        top = self.f_max if self.f_max is not None else nyquist
        check(
            self.f_min < top <= nyquist, "frontend.f_max", self.f_max, f"use more than f_min and at most {nyquist} Hz"
        )
        check_padding(self.pad_seconds)
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

    @property
    def pad_samples(self) -> int:
        """Samples to which shorter waveforms are padded."""
        return 0 if self.pad_seconds is None else round(self.pad_seconds * self.sample_rate)


def check_padding(seconds: float | None, hint: str = "use more than 0, at most 3600") -> None:
    """Raise an AudiobatError for a `pad_seconds` that is no length."""
    check(seconds is None or 0 < seconds <= 3600, "frontend.pad_seconds", seconds, hint)


@dataclass(frozen=True)
class StatisticsConfig:
    """What a model's frontend takes in place of its own, for a data set.

    Mean and std if its norm is global, the length to which waveforms are padded if its norm is by clip, which padding
    changes: a clip with zeros in it has its minimum at the floor.
    """

    statistics: Statistics = "auto"  # whose; auto: those given, else the model's own
    mean: float | None = None
    std: float | None = None
    pad_seconds: float | None = None  # 0: none; null: the model's own

    def __post_init__(self) -> None:
        check_choice(self, "statistics")
        check_padding(self.pad_seconds or None, "use 0, which is none, up to 3600")
        mean, std = pick_statistics(self.statistics, self.mean, self.std, (0.0, 1.0))
        if self.statistics != "auto":
            object.__setattr__(self, "mean", mean)
            object.__setattr__(self, "std", std)

    def apply(self, frontend: FrontendConfig) -> FrontendConfig:
        """The model's frontend with these, if it asks for any."""
        if frontend.norm != "global" and self.pad_seconds is not None:
            return dataclasses.replace(frontend, pad_seconds=self.pad_seconds or None)
        if frontend.norm != "global" or (self.mean is None and self.std is None):
            return frontend
        mean, std = pick_statistics("auto", self.mean, self.std, frontend.moments)
        return dataclasses.replace(frontend, statistics=self.statistics, mean=mean, std=std)


@dataclass(frozen=True)
class KaldiFrontendConfig(FrontendConfig):
    """EAT's, unless told otherwise."""

    kind: str = kind_field("frontend", "kaldi_fbank")


@dataclass(frozen=True)
class PrepareConfig:
    """What `audiobat prepare --stats` looks at clips through."""

    frontend: KaldiFrontendConfig = field(default_factory=KaldiFrontendConfig)
