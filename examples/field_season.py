"""A field season: embed recordings once, hear what a model is least sure of, train again, in seconds a round.

    python examples/field_season.py              # 40 recordings of a minute; six rounds of 50 clips of a second
    python examples/field_season.py FOLDER 8 2 10 1    # 8 recordings, 2 rounds of 10 clips, another season

A person would answer in Raven or Audacity. Here the answers come from where the sounds were mixed in, so that it can be
measured what the choice of clips is worth: the same number of clips drawn at random teaches a second model.
"""

import contextlib
import csv
import io
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

import audiobat
from audiobat.data.embeddings import read_embeddings
from audiobat.data.scenes import BED_RMS, RATE, active_rms, load_stock
from audiobat.finetuning.review_list import read_review, write_review
from audiobat.inference.library.recordings import Recordings
from audiobat.inference.review import Pick, write_clips

CALLS = ("cattle", "female_cry", "fire_crackle", "goat", "hoofbeats", "male_cry", "saw")
OTHERS = ("arrow_flight", "hammer_on_wood", "leaves", "picking_fruit", "step_grass", "sword_swing")  # nobody's question
SECONDS = 60


def record(folder: Path, split: str, count: int, seed: int) -> None:
    """Write `count` recordings with six calls and six other sounds in each, and SPLIT.csv with the calls' times."""
    (folder / split).mkdir(parents=True)
    stock, rows = load_stock(split, 4 * RATE), [("path", "label", "onset", "offset")]
    for number in range(count):
        rng = np.random.default_rng((seed, split == "test", number))
        parts = stock.beds[list(stock.beds)[rng.integers(len(stock.beds))]]
        sound = np.resize(np.concatenate(parts), SECONDS * RATE).astype(np.float64)
        sound *= BED_RMS / np.sqrt(np.square(sound).mean())
        for label in (*rng.choice(CALLS, 6), *rng.choice(OTHERS, 6)):
            takes = stock.takes[str(label)]
            take = stock.load(takes[rng.integers(len(takes))][1])
            at = int(rng.integers(len(sound) - len(take)))
            sound[at : at + len(take)] += take * (BED_RMS * 10 ** (rng.uniform(0, 15) / 20) / active_rms(take))
            if label in CALLS:
                rows.append((f"{split}/{number:03}.wav", str(label), at / RATE, (at + len(take)) / RATE))
        soundfile.write(folder / split / f"{number:03}.wav", sound / max(1, np.abs(sound).max()), RATE)
    with (folder / f"{split}.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def hear(review: Path, truth: Path) -> None:
    """Answer the questions that the label tracks of a review ask, from the truth."""
    with truth.open(newline="") as file:
        events = [
            (Path(row["path"]).name, row["label"], float(row["onset"]), float(row["offset"]))
            for row in csv.DictReader(file)
        ]
    for clip in read_review(review):
        lines = []
        for path, label, onset, offset in events:
            start, end = max(onset, clip.start), min(offset, clip.end)
            if path == clip.path and end - start > 0.1:
                lines.append(f"{start - clip.start:.3f}\t{end - clip.start:.3f}\t{label}\n")
        (review / clip.clip).with_suffix(".txt").write_text("".join(lines))


def draw(index: Path, recordings: Path, review: Path, count: int, first: int) -> None:
    """The same as `predict --review`, by lot: windows of the recordings from number `first` on."""
    table, earlier = read_embeddings(index), read_review(review)
    known = {(clip.path, clip.start) for clip in earlier}
    free = [
        row
        for row in range(len(table))
        if int(table.paths[row][:3]) >= first and (table.paths[row], table.starts[row]) not in known
    ]
    rows = np.random.default_rng(len(earlier)).choice(free, count, replace=False)
    clips = write_clips(
        review, Recordings(table, recordings), table, [Pick(int(row), "?") for row in rows], len(earlier)
    )
    write_review(review, [*earlier, *clips])


def main(
    folder: str | Path | None = None, recordings: int = 40, rounds: int = 6, clips: int = 50, seed: int = 0
) -> dict[str, list[float]]:
    """Print macro F1 of 1-s segments of other recordings, round by round, and return it for both models."""
    place = Path(tempfile.mkdtemp() if folder is None else folder)
    record(place, "train", recordings, seed)
    record(place, "test", max(2, recordings // 2), seed)
    index = audiobat.embed("bat_nano", place / "train", place / "index.npz", window_seconds=1, hop_seconds=0.5)
    with (place / "train.csv").open(newline="") as file:
        begun = list(csv.reader(file))[: 1 + 2 * 6]  # somebody has listened through two recordings
    with (place / "begun.csv").open("w", newline="") as file:
        csv.writer(file).writerows(begun)

    found: dict[str, list[float]] = {"review": [], "random": []}
    for name, scores in found.items():
        review, sources = place / name, [place / "begun.csv"]
        for number in range(rounds + 1):
            run = place / "runs" / f"{name}_{number}"
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                audiobat.finetune("bat_nano", sources, run, features=index)
                labels = audiobat.predict(run, place / "test", run / "labels.csv")
                result = audiobat.evaluate(labels, place / "test.csv", run / "evaluation", clips=0)
                scores.append(result.levels["segment"].metrics["f1_macro"].value)
                if number == rounds:
                    break
                if name == "review":
                    audiobat.predict(run, place / "train", review, review=clips, features=index, format="audacity")
                else:
                    draw(index, place / "train", review, clips, first=2)
                hear(review, place / "train.csv")
                sources = [place / "begun.csv", review]
            print(f"{name}: {clips * number} clips heard, F1 {scores[-1]:.3f}")
        print(f"{name}: {clips * rounds} clips heard, F1 {scores[-1]:.3f}")
    return found


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:]))
