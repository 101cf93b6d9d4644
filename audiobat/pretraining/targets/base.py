"""The protocol of targets: whole, unmasked clips to what the student predicts of them; how targets are normalised."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple, Self

from torch import Tensor, nn
from torch.nn import functional as F

from audiobat.config import ModelConfig, TargetConfig
from audiobat.models.encoder import AudioEncoder


class Targets(NamedTuple):
    """What the student predicts for each clip, and the spread that a collapsed teacher loses."""

    patch_targets: Tensor  # [B, N, P]
    cls_target: Tensor | None  # [B, D]; None from a source without one
    variance: Tensor | float  # [] of the raw targets over tokens: 0 when all tokens are one


class TargetSource(nn.Module, ABC):
    """Base of every source of targets; a subclass in this folder is a kind, one in a user's file `FILE.py:CLASS`."""

    has_cls_target: ClassVar[bool] = True  # whether the loss on the cls token (Eq. 6) has something to compare with
    width: int  # P, the numbers of a patch's target

    def __init__(self, config: TargetConfig, model: ModelConfig, student: AudioEncoder) -> None:
        super().__init__()
        self.config = config
        self.width = model.encoder.dim

    @classmethod
    def build(cls, config: TargetConfig, model: ModelConfig, student: AudioEncoder) -> Self:
        """A source of `config`; `student` is the encoder that is trained, to start a teacher from."""
        return cls(config, model, student)

    @abstractmethod
    def forward(
        self,
        spectrogram: Tensor,
        valid: Tensor | None = None,
        waveform: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Targets:
        """Targets of whole clips; no gradient flows through them.

        Args:
            spectrogram: [B, T, F], as the student's frontend makes it.
            valid: bool [B, N], False on patches of padding; None where there is none.
            waveform: [B, S], for targets that do not come from the spectrogram.
            lengths: samples [B] of each clip; None: all S.
        """

    def update(self, student: AudioEncoder, step: int) -> None:
        """Follow the student after its update number `step`."""

    def flops(self, clips: int, patches: int) -> float:
        """What the targets of `clips` clips of `patches` patches cost; 0 unless a source counts it."""
        return 0.0


def standardise_tokens(x: Tensor, weight: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    """Instance norm of [B, N, D] over a clip's tokens, those with weight 0 left out; also the variance [B, 1, D]."""
    mean = masked_mean(x, weight)
    centred = x - mean
    variance = masked_mean(centred.square(), weight)
    return centred * (variance + eps).rsqrt(), variance


def standardise_features(x: Tensor, eps: float) -> Tensor:
    """Layer norm of [B, N, D] over features, without learned scale."""
    return F.layer_norm(x, x.shape[-1:], eps=eps)


def masked_mean(x: Tensor, weight: Tensor | None) -> Tensor:
    """Mean of [B, N, D] over the tokens whose weight, bool [B, N, 1], is True: [B, 1, D]; 0 where there are none."""
    if weight is None:
        return x.mean(1, keepdim=True)
    # Mixed columns may all lie behind a short clip's end: no cell of them is scored, but NaN times 0 would be NaN.
    return (x * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=1)
