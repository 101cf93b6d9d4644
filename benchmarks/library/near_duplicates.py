"""How well copies of recordings are found in a library: copies made on purpose among the demo's recordings.

In: the recordings of the demo, and of COPIES of them a copy each: re-encoded, softer, noisy, trimmed, shifted, or all
of it. Out: precision and recall of `audiobat duplicates` beside the pairs whose cosine is at least 0.99.

    python benchmarks/library/near_duplicates.py OUT [--copies 240] [--seed 0]
"""

import argparse
from pathlib import Path

import numpy as np
import soundfile
import soxr

import audiobat
from audiobat.data.embeddings import read_embeddings
from audiobat.data.scenes import demo_folder

KINDS = ("mp3", "vorbis", "gain", "noise", "resampled", "trimmed", "shifted", "all")


def copy(samples: np.ndarray, rate: int, kind: str, rng: np.random.Generator) -> tuple[np.ndarray, int, str]:
    """A copy of a recording: samples, rate and the ending of its file."""
    ending = {"mp3": ".mp3", "all": ".mp3", "vorbis": ".ogg"}.get(kind, ".flac")
    if kind in ("trimmed", "all"):  # a quarter less, at a random place
        left = len(samples) * 3 // 4
        first = rng.integers(len(samples) - left + 1)
        samples = samples[first : first + left]
    if kind in ("shifted", "all"):  # more before it: up to half a second of a soft hiss
        lead = rng.normal(size=int(rng.uniform(0.1, 0.5) * rate)) * 1e-3
        samples = np.concatenate([lead, samples])
    if kind in ("gain", "all"):
        samples = samples * 10 ** (-rng.uniform(6, 18) / 20)
    if kind in ("noise", "all"):  # 20 dB below
        level = np.sqrt(np.mean(samples**2)) * 10 ** (-20 / 20)
        samples = samples + level * rng.normal(size=len(samples))
    if kind == "resampled":
        samples, rate = soxr.resample(samples, rate, 22_050), 22_050
    return samples.clip(-1, 1), rate, ending


def plant(demo: Path, out: Path, copies: int, seed: int) -> set[frozenset[str]]:
    """Write all recordings and the copies; returns the pairs of names."""
    rng = np.random.default_rng(seed)
    files = sorted(path for path in demo.rglob("*.ogg"))
    pairs = set()
    out.mkdir(parents=True, exist_ok=True)
    for file in files:
        (out / file.name).write_bytes(file.read_bytes())
    for number, place in enumerate(rng.permutation(len(files))[:copies]):
        samples, rate = soundfile.read(files[place], always_2d=True)
        kind = KINDS[number % len(KINDS)]
        samples, rate, ending = copy(samples.mean(1), rate, kind, rng)
        name = f"{rng.integers(1 << 40):x}_{kind}{ending}"
        options = {"compression_level": 0.7} if ending == ".mp3" else {}
        soundfile.write(out / name, samples, rate, **options)
        pairs.add(frozenset((files[place].name, name)))
    return pairs


def judge(found: set[frozenset[str]], planted: set[frozenset[str]], copies: set[str]) -> dict[str, int]:
    """How many of the pairs with a copy that were made are right, how many were made, and pairs of originals alone."""
    with_copy = {pair for pair in found if pair & copies}
    right = with_copy & planted
    return {"found": len(with_copy), "right": len(right), "made": len(planted), "of originals": len(found - with_copy)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--copies", type=int, default=240)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    table = options.out / "table.npz"
    planted = plant(demo_folder(), options.out / "sounds", options.copies, options.seed)
    copies = {name for pair in planted for name in pair if name.split(".")[0].rsplit("_", 1)[-1] in KINDS}
    if not table.exists():
        audiobat.embed("bat_nano", options.out / "sounds", table)
    rows = read_embeddings(table)
    for name, mean in (("cosine", 0), ("cosine around the mean", rows.vectors.mean(0))):
        unit = rows.vectors - mean
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        first, second = np.nonzero(np.triu(unit @ unit.T, 1) >= 0.99)
        pairs = {frozenset((a, b)) for a, b in zip(rows.paths[first], rows.paths[second], strict=True) if a != b}
        print(f"{name} of .99 and more: {judge(pairs, planted, copies)}")
    found = audiobat.duplicates(table, out=options.out / "pairs.csv", data=options.out / "sounds", overwrite=True)
    pairs = {frozenset((pair.file, pair.copy)) for pair in found}
    print(f"audiobat duplicates: {judge(pairs, planted, copies)}")
    for kind in KINDS:
        made = {pair for pair in planted if any(name.split(".")[0].endswith(f"_{kind}") for name in pair)}
        print(f"  {kind}: {len(made & pairs)} of {len(made)}")
    wrong = sorted(sorted(pair) for pair in pairs - planted if pair & copies)
    print("not made:", *(" = ".join(pair) for pair in wrong), sep="\n  ")


if __name__ == "__main__":
    main()
