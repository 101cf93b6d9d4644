"""Log-probabilities of frames to the numbers of characters: the likeliest path, or a search over texts.

A path has one character or blank (0) a frame; its text is what is left when repeats are taken once and then blanks are
dropped. Many paths have the same text. No dictionary and no language model have a say.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional

from audiobat.probing.asr.alphabet import BLANK

FACTOR = 6364136223846793005  # of a digest of texts as whole numbers of 64 bits, which wrap around
IMPOSSIBLE = float("-inf")  # log-probability


def best_paths(log_probs: Tensor, lengths: Tensor) -> list[list[int]]:
    """The text of the likeliest path of each clip.

    Args:
        log_probs: [B, frames, C].
        lengths: [B] frames of each clip.
    """
    path = log_probs.argmax(-1)  # [B, frames]
    fresh = path != functional.pad(path, (1, 0), value=-1)[:, :-1]
    within = torch.arange(path.shape[1], device=path.device) < lengths[:, None]
    kept = (fresh & within & (path != BLANK)).cpu()
    return [own[some].tolist() for own, some in zip(path.cpu(), kept, strict=True)]


def beam_search(log_probs: Tensor, lengths: Tensor, width: int) -> list[list[int]]:
    """The likeliest text of each clip among `width` beginnings that are kept from frame to frame (Hannun et al., 2014).

    The probability of a text is that of all its paths that go through kept beginnings; with all beginnings kept it is
    exact. Arguments as of `best_paths`. A frame extends all beginnings of all clips at once, in double precision.
    """
    beam = Beam.empty(len(log_probs), width, log_probs.device)
    places = torch.arange(width, device=log_probs.device)
    steps: list[tuple[Tensor, Tensor]] = []  # of each frame, [B, K]: which beginning was kept or extended, and by what
    for frame, now in enumerate(log_probs.double().unbind(1)[: int(lengths.max())]):
        extended, source, added = beam.extended(now)
        going = (frame < lengths)[:, None]  # a clip that has ended stays as it is
        beam = beam.replaced(extended, going)
        steps.append((torch.where(going, source, places), torch.where(going, added, BLANK)))
    place = torch.logaddexp(beam.blank, beam.label).argmax(1, keepdim=True)  # [B, 1]
    backwards = []
    for source, added in reversed(steps):
        backwards.append(added.gather(1, place))
        place = source.gather(1, place)
    characters = torch.cat(backwards[::-1], 1).cpu()  # [B, frames]
    return [own[own != BLANK].tolist() for own in characters]


@dataclass(frozen=True)
class Beam:
    """The K beginnings of texts that are kept of each clip, all [B, K]; of probability 0: a place not yet filled."""

    blank: Tensor  # log-probability of a beginning's paths that end in blank
    label: Tensor  # and of those that end in its last character
    last: Tensor  # that character; BLANK: the beginning is empty
    digest: Tensor  # a number of the beginning
    parent: Tensor  # and of the beginning without its last character

    @classmethod
    def empty(cls, clips: int, width: int, device: torch.device) -> Beam:
        """The empty text alone."""
        blank = torch.full((clips, width), IMPOSSIBLE, dtype=torch.float64, device=device)
        blank[:, 0] = 0.0
        digest = -torch.arange(1, width + 1, device=device).expand(clips, width)
        last = torch.full((clips, width), BLANK, device=device)
        return cls(blank, torch.full_like(blank, IMPOSSIBLE), last, digest, torch.zeros_like(digest))

    def extended(self, now: Tensor) -> tuple[Beam, Tensor, Tensor]:
        """The likeliest K beginnings after one more frame, with log-probabilities `now` [B, C].

        Also returns which beginning each comes of, and the character that was added, BLANK for none: both [B, K].
        """
        width, classes = self.last.shape[1], now.shape[1]
        total = torch.logaddexp(self.blank, self.label)
        of_last = now.gather(1, self.last)  # [B, K]
        grown = total[..., None] + now[:, None]  # [B, K, C]: by each character
        again = self.blank + of_last  # the last character is another one only after a blank
        grown = grown.scatter(2, self.last[..., None], again[..., None])
        grown[..., BLANK] = IMPOSSIBLE
        # Grown by a character, one kept beginning may be another, which has it already: their paths belong together.
        wanted = self.last[:, None].expand(-1, width, -1)  # [B, K grown, K]
        same = (self.digest[..., None] == self.parent[:, None]) & (wanted != BLANK) & (total > IMPOSSIBLE)[:, None]
        joined = grown.gather(2, wanted).masked_fill(~same, IMPOSSIBLE).logsumexp(1)  # [B, K]
        taken = torch.zeros_like(grown).scatter_add(2, wanted, same.double()) > 0
        grown = grown.masked_fill(taken, IMPOSSIBLE)
        blank, label = total + now[:, :1], torch.logaddexp(self.label + of_last, joined)  # of beginnings that stay

        scores = torch.cat([torch.logaddexp(blank, label)[..., None], grown[..., 1:]], 2).flatten(1)  # [B, K * C]
        best, chosen = scores.topk(width, 1)
        source, added = chosen // classes, chosen % classes
        stays, before = added == BLANK, self.digest.gather(1, source)
        return (
            Beam(
                blank.gather(1, source).masked_fill(~stays, IMPOSSIBLE),
                torch.where(stays, label.gather(1, source), best),
                torch.where(stays, self.last.gather(1, source), added),
                torch.where(stays, before, before * FACTOR + added),
                torch.where(stays, self.parent.gather(1, source), before),
            ),
            source,
            added,
        )

    def replaced(self, by: Beam, where: Tensor) -> Beam:
        """This beam, but for the clips `where` [B, 1], which are `by`'s."""
        return Beam(*(torch.where(where, getattr(by, f.name), getattr(self, f.name)) for f in fields(self)))
