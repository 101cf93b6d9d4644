"""Log-probabilities of frames to the numbers of characters: the likeliest path, or a search over texts.

A path has one character or blank (0) a frame; its text is what is left when repeats are taken once and then blanks are
dropped. Many paths have the same text. No dictionary and no language model have a say.
"""

from __future__ import annotations

import torch
from torch import Tensor

BLANK = 0
FACTOR = 6364136223846793005  # of a digest of texts as whole numbers of 64 bits, which wrap around


def best_paths(log_probs: Tensor, lengths: Tensor) -> list[list[int]]:
    """The text of the likeliest path of each clip.

    Args:
        log_probs: [B, frames, classes].
        lengths: [B] frames of each clip.
    """
    path = log_probs.argmax(-1)  # [B, frames]
    fresh = path != torch.nn.functional.pad(path, (1, 0), value=-1)[:, :-1]
    within = torch.arange(path.shape[1], device=path.device) < lengths[:, None]
    kept = (fresh & within & (path != BLANK)).cpu()
    return [own[some].tolist() for own, some in zip(path.cpu(), kept, strict=True)]


def beam_search(log_probs: Tensor, lengths: Tensor, width: int) -> list[list[int]]:
    """The likeliest text of each clip among `width` beginnings that are kept from frame to frame (Hannun et al., 2014).

    The probability of a text is that of all its paths that go through kept beginnings; with all beginnings kept it is
    exact. Arguments as of `best_paths`. All clips and beginnings of a frame are extended at once, in double precision.
    """
    clips, _, classes = log_probs.shape
    device, infinite = log_probs.device, float("-inf")
    log_probs = log_probs.double()
    # Of each kept beginning [B, K]: the log-probability of its paths that end in blank, and in its last character;
    # a digest of it, and of it without that character. A beginning of probability 0 is a place not yet filled.
    blank = torch.full((clips, width), infinite, dtype=torch.float64, device=device)
    blank[:, 0] = 0.0
    label = torch.full_like(blank, infinite)
    last = torch.full((clips, width), BLANK, device=device)
    digest = -torch.arange(1, width + 1, device=device).expand(clips, width)
    parent = torch.zeros_like(digest)
    steps: list[tuple[Tensor, Tensor]] = []  # of each frame: the beginning that was kept or extended, and by what
    for frame in range(int(lengths.max())):
        now = log_probs[:, frame]  # [B, C]
        total = torch.logaddexp(blank, label)
        grown = total[..., None] + now[:, None]  # [B, K, C]: extended by each character
        # The last character again is another one only after a blank.
        again = blank + now.gather(1, last)
        grown.scatter_(2, last[..., None], again[..., None])
        grown[..., BLANK] = infinite
        stays_blank = total + now[:, :1]
        stays_label = label + now.gather(1, last)
        # A beginning may also come of a kept one that is a character shorter: both are the same text.
        child = last[..., None] != BLANK
        same = (parent[..., None] == digest[:, None]) & child & (total > infinite)[..., None]  # [B, K, K shorter]
        by_last = grown.gather(2, last[:, None].expand(-1, width, -1)).transpose(1, 2)  # [B, K, K shorter]
        joined = by_last.masked_fill(~same, infinite).logsumexp(2)
        stays_label = torch.logaddexp(stays_label, joined)
        taken = torch.zeros_like(grown).scatter_add_(2, last[:, None].expand(-1, width, -1), same.mT.double()) > 0
        grown = grown.masked_fill(taken, infinite)
        scores = torch.cat([torch.logaddexp(stays_blank, stays_label)[..., None], grown[..., 1:]], 2)  # [B, K, C]
        chosen = scores.flatten(1).topk(width, 1).indices  # [B, K]
        source, added = chosen // classes, chosen % classes  # added 0: the beginning stays
        stays = added == BLANK
        new_label = torch.where(stays, stays_label.gather(1, source), scores.flatten(1).gather(1, chosen))
        new_blank = stays_blank.gather(1, source).masked_fill(~stays, infinite)
        old = digest.gather(1, source)
        new_parent = torch.where(stays, parent.gather(1, source), old)
        new_digest = torch.where(stays, old, old * FACTOR + added)
        new_last = torch.where(stays, last.gather(1, source), added)
        going = (frame < lengths)[:, None]  # a clip that has ended stays as it is
        blank, label = torch.where(going, new_blank, blank), torch.where(going, new_label, label)
        digest, parent = torch.where(going, new_digest, digest), torch.where(going, new_parent, parent)
        last = torch.where(going, new_last, last)
        places = torch.arange(width, device=device).expand(clips, width)
        steps.append((torch.where(going, source, places), torch.where(going, added, BLANK)))
    place = torch.logaddexp(blank, label).argmax(1, keepdim=True)  # [B, 1]
    backwards = []
    for source, added in reversed(steps):
        backwards.append(added.gather(1, place))
        place = source.gather(1, place)
    if not backwards:
        return [[] for _ in range(clips)]
    characters = torch.cat(backwards[::-1], 1).cpu()  # [B, frames]
    return [own[own != BLANK].tolist() for own in characters]
