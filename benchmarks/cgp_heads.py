"""CGP at K = 10,000, forward and backward: extremes in chunks against the plain formula, in time and peak memory.

python benchmarks/cgp_heads.py [CLIPS] [ROUNDS], for the similarities' least and greatest alone (matmul, min, max, with
gradients of tokens and prototypes) and for a step of the whole head, Eq. 9-11, with the gradients of its 23 million
parameters: these take 94 MB in any formula. What differs most is the gate's gradient, a sum of terms that cancel, of
which the plain formula in fp32 is some 20 times further from fp64 than ours.
Seconds are medians of interleaved rounds in one process. Peaks are what a fresh process needs above what it held before
the step, so that no formula finds the other's memory; Linux only, they come from /proc/self.
"""

import ctypes
import statistics
import subprocess
import sys
import time
from functools import partial

import torch
from torch.nn import functional as F

from audiobat.models.features import LayerFeatures
from audiobat.models.heads.cgp import ConvexGatedProbe
from audiobat.models.heads.pooling import extremes

PATCHES, DIM, DEPTH, PROTOTYPES, CLASSES = 512, 768, 12, 10_000, 527
FORMULAS, PARTS = ("plain", "chunks"), ("similarities", "head")


def plain_extremes(tokens, prototypes):
    """What the formula says: all similarities, their minimum and maximum; autograd does the rest."""
    similarity = tokens @ prototypes.T
    return similarity.min(1).values, similarity.max(1).values


def plain_head(head, features):
    """Eq. 9-11 as they are written: unit tokens of all blocks, their mix, similarities, extremes, the classifier."""
    patches = torch.einsum("l,lbnd->bnd", head.gate_weights, F.normalize(features.patch_tokens, dim=-1))
    cls = torch.einsum("l,lbd->bd", head.gate_weights, F.normalize(features.cls_token, dim=-1))
    prototypes = F.normalize(head.prototypes, dim=-1)
    return head.classifier(torch.cat([*plain_extremes(patches, prototypes), cls @ prototypes.T], dim=-1))


def build(part: str, clips: int):
    """What is timed, as a function of the formula that returns results and gradients."""
    torch.manual_seed(0)
    formulas = {"plain": plain_extremes, "chunks": extremes}

    def similarities(tokens, prototypes, weights, formula):
        both = torch.stack(formulas[formula](tokens, prototypes))
        return both.detach(), *torch.autograd.grad((both * weights).sum(), (tokens, prototypes))

    def whole(head, features, weights, formula):
        logits = plain_head(head, features) if formula == "plain" else head(features)
        return logits.detach(), *torch.autograd.grad((logits * weights).sum(), list(head.parameters()))

    if part == "similarities":
        tokens = F.normalize(torch.randn(clips, PATCHES, DIM), dim=-1).requires_grad_()
        prototypes = F.normalize(torch.randn(PROTOTYPES, DIM), dim=-1).requires_grad_()
        return partial(similarities, tokens, prototypes, torch.randn(2, clips, PROTOTYPES))
    features = LayerFeatures(
        torch.randn(DEPTH, clips, PATCHES, DIM),
        torch.randn(DEPTH, clips, DIM),
        (PATCHES // 8, 8),
        torch.ones(clips, PATCHES, dtype=torch.bool),
        torch.arange(PATCHES // 8) * 0.16,
    )
    return partial(whole, ConvexGatedProbe(DIM, DEPTH, CLASSES, PROTOTYPES), features, torch.randn(clips, CLASSES))


def memory(field: str) -> float:
    """A field of /proc/self/status in MB."""
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def measure_peak(part: str, formula: str, clips: int) -> None:
    """Print the MB of one step."""
    step = build(part, clips)
    torch.randn(2000, DIM) @ torch.randn(DIM, 2000)  # the matrix library's own buffers
    ctypes.CDLL(None).malloc_trim(0)  # memory that is free but still held would hide some of what the step needs
    with open("/proc/self/clear_refs", "w") as peak:
        peak.write("5")  # forget the peak so far
    before = memory("VmRSS")
    assert memory("VmHWM") < before + 1
    step(formula=formula)
    print(memory("VmHWM") - before)


def compare(part: str, clips: int, rounds: int) -> None:
    """One row of the table."""
    command = [sys.executable, __file__, "--peak", part]
    peak = {formula: float(subprocess.check_output([*command, formula, str(clips)])) for formula in FORMULAS}
    step = build(part, clips)
    seconds: dict[str, list[float]] = {formula: [] for formula in FORMULAS}
    results = {formula: step(formula=formula) for formula in FORMULAS}  # these warm up
    difference = max(
        ((ours - theirs).abs().max() / theirs.abs().max()).item()
        for ours, theirs in zip(results["chunks"], results["plain"], strict=True)
    )
    del results
    for _ in range(rounds):
        for formula in FORMULAS:
            start = time.perf_counter()
            step(formula=formula)
            seconds[formula].append(time.perf_counter() - start)
    plain, ours = (statistics.median(seconds[formula]) for formula in FORMULAS)
    print(
        f"| {part} | {clips} | {plain:.2f} | {ours:.2f} | {ours / plain:.2f} | {peak['plain']:.0f} "
        f"| {peak['chunks']:.0f} | {peak['chunks'] / peak['plain']:.2f} | {difference:.0e} |",
        flush=True,
    )


def main(clips: int = 8, rounds: int = 5) -> None:
    """Both parts, as a table."""
    print("| part | clips | plain s | ours s | ratio | plain MB | ours MB | ratio | largest relative difference |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for part in PARTS:
        compare(part, clips, rounds)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        measure_peak(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        main(*map(int, sys.argv[1:]))
