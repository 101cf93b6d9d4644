"""`audiobat predict --review`: the windows of recordings that are most worth a person's ear, as clips with a table.

In: a table of embeddings, or recordings to make one of, and the model. Out: a folder of WAV files, and a selection
table or label tracks with a question at each. Once answers stand in the place of the questions, `finetune --features`
reads the folder as it is.
"""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from audiobat.config import check
from audiobat.data.embeddings import EmbeddingTable, read_embeddings
from audiobat.engine.files import write_atomic
from audiobat.engine.ranks import launch
from audiobat.errors import AudiobatError, counted
from audiobat.finetuning.review_list import NAME, QUESTION, ReviewClip, read_review, read_taught, write_review
from audiobat.inference.embed import embed
from audiobat.inference.events import DIGITS
from audiobat.inference.library.query import Query, load_model
from audiobat.inference.library.recordings import Recordings, clip_name
from audiobat.inference.library.vectors import Ids, Library, blocks, nearest_first, open_library
from audiobat.inference.settings import MULTI_LABEL_THRESHOLD
from audiobat.inference.window_pass import list_clips
from audiobat.inference.writers import BOX_COLUMNS, RAVEN_ENDING, TRACKS, box, one_line
from audiobat.models.features import Encoder
from audiobat.models.heads.linear import LinearProbe
from audiobat.models.tagger import Tagger
from audiobat.zoo.load import load_encoder
from audiobat.zoo.release import load_tagger, locate

FEATURES = "features.npz"  # in the folder of a review that is given no table
SPREAD = 5  # picks are the most different ones among so many times as many uncertain ones
SURE = 1e-6  # scores are taken for no nearer to 0 and 1 than this
RAVEN_COLUMNS = (*BOX_COLUMNS, "Begin File", "File Offset (s)", "Label")


class Pick(NamedTuple):
    """A window to hear."""

    row: int  # of the table of embeddings
    question: str  # what stands in the place of its label


def make_review(
    model: str | Path | Tagger,
    data: str | Path | Sequence[str | Path],
    out: Path,
    count: int,
    *,
    features: str | Path | None,
    like: Sequence[str | Path],
    format: str,
    window_seconds: float | None,
    hop_seconds: float | None,
    device: str,
    trust_remote_code: bool,
) -> Path:
    """Put `count` clips into the folder `out`, beside those of earlier reviews; the arguments are those of `predict`.

    Windows that the model's head was taught, and those that have been put into the folder before, do not come again.

    Raises:
        AudiobatError: other files in `out`, no window left, embeddings of another model, a head that does not read
            them, audio that cannot be read.
    """
    check(count > 0, "review", count, "give how many clips to hear")
    check(format in ("auto", *TRACKS), "format", format, "a review has a table for raven or tracks for audacity")
    if out.exists() and not (out.is_dir() and (not any(out.iterdir()) or (out / NAME).exists())):
        raise AudiobatError(f"--out {out} holds other files and no review: name a new folder.")
    data, *others = [data] if isinstance(data, str | Path) else data
    if others:
        raise AudiobatError(f"--review hears one source, and --data names {len(others) + 1}: give a folder of them.")
    with launch(device) as ranks:
        if ranks.world_size > 1:
            raise AudiobatError("--review runs on one rank: start it without torchrun or srun.")
        device = str(ranks.device)
    release = None if isinstance(model, Tagger) else release_with_head(model)
    tagger = model if isinstance(model, Tagger) else None
    if release is not None:
        tagger = load_tagger(release, device, trust_remote_code)
    if tagger is not None:
        linear_place(tagger)  # a head that reads no vectors is refused before anything is written
    encoder = tagger.encoder if tagger is not None else load_encoder(model, device, trust_remote_code)  # type: ignore[arg-type]
    if features is None:
        features = out / FEATURES
        if not features.exists():
            list_clips(data)  # an error if there are none, before anything is written
            begin(out)
            embed_for(encoder, tagger, data, features, window_seconds, hop_seconds, device)
    raw = read_embeddings(features)
    load_model(raw, encoder, torch.device(device), trust_remote_code)  # an error if it did not make the table
    scores = None if tagger is None else scores_of(tagger, raw)
    del raw  # its vectors, of which the library has some of its own
    library = open_library(features)
    table = library.table
    earlier = read_review(out)
    heard = [(clip.path, clip.start) for clip in earlier] + ([] if release is None else read_taught(release))
    free = not_heard(table, heard)
    if like:
        vectors = [Query(Path(file)).embed(encoder, table, torch.device(device)) for file in like]
        near = library.cosines(library.unit(np.concatenate(vectors)), len(table))
        rows = apart(table, nearest_first(near), free, count)
    elif tagger is None or scores is None:
        rows = most_different(library, np.flatnonzero(free), ~free, count)
    else:
        some = apart(table, nearest_first(-certainty(scores, tagger)), free, SPREAD * count)
        rows = most_different(library, some, ~free, count)
    if not len(rows):
        raise AudiobatError(f"All windows of {features} have been heard: embed more recordings.")
    names = () if tagger is None else tagger.classes
    picks = [Pick(row, question(names, None if scores is None else scores[row])) for row in rows.tolist()]
    recordings = Recordings(table, data)
    clips = write_clips(out, recordings, table, picks, len(earlier))
    if format == "audacity":
        asked = write_tracks(out, clips, picks)
    else:
        asked = str(write_table(out, clips, picks, recordings, encoder.sample_rate))
    write_review(out, [*earlier, *clips])
    to_hear = counted(len(clips), "clip")
    print(f"{out}: {to_hear} to hear; {asked} asks what each is: put that in the place of `{QUESTION} ...`")
    known = "MODEL" if isinstance(model, Tagger) else model
    parts = ("--model", known, "--data", out, "--features", features, "--out", "RUN")
    print(f"then: audiobat finetune {shlex.join(map(str, parts))} (a removed row says that nothing is there)")
    return out


def begin(out: Path) -> None:
    """Make the folder a review, so that one that is stopped here can go on."""
    out.mkdir(parents=True, exist_ok=True)
    if not (out / NAME).exists():
        write_review(out, [])


def release_with_head(model: str | Path) -> Path | None:
    """The release folder that a name means, if it has a head."""
    try:
        folder = locate(model).folder
    except AudiobatError:  # a file of another project, say: it has none
        return None
    return folder if (folder / "head.safetensors").is_file() else None


def embed_for(
    encoder: Encoder,
    tagger: Tagger | None,
    data: str | Path,
    out: Path,
    window: float | None,
    hop: float | None,
    device: str,
) -> None:
    """Embed the recordings as the head, if it is a linear one, reads them."""
    layer, pool = linear_place(tagger) if tagger is not None else (-1, "mean")
    if tagger is not None and window is None:
        window, hop = tagger.config.window_seconds, tagger.config.hop_seconds if hop is None else hop
    embed(encoder, data, out, layer=layer, pool=pool, window_seconds=window, hop_seconds=hop, device=device)


def linear_place(tagger: Tagger) -> tuple[int, Literal["mean", "cls"]]:
    """The block, from 1, and the pooling that the head reads.

    Raises:
        AudiobatError: it reads more than one vector a window.
    """
    head = tagger.head
    if not isinstance(head, LinearProbe) or tagger.task != "clip":
        raise AudiobatError(
            f"--review reads one vector a window, and this head is {tagger.config.head.kind} for each {tagger.task}: "
            "give a model of `finetune --features`, or a linear head for clips."
        )
    return (head.layer if head.layer > 0 else tagger.encoder.depth), "mean" if head.token == "mean" else "cls"


@torch.no_grad()
def scores_of(tagger: Tagger, table: EmbeddingTable) -> NDArray[np.float32]:
    """The head's scores [R, C] of the windows of a table.

    Raises:
        AudiobatError: the head reads another block or pooling than the table has.
    """
    layer, pool = linear_place(tagger)
    has = table.meta.get("layer"), table.meta.get("pool")
    if has != (layer, pool):
        raise AudiobatError(
            f"{table.source} has the {has[1]} of layer {has[0]}, the head reads the {pool} of layer {layer}: embed the "
            f"recordings with --layer {layer} --pool {pool}, or train a head on these."
        )
    logits = tagger.head.classify(torch.from_numpy(table.vectors).to(next(tagger.parameters()).device))
    scores: NDArray[np.float32] = tagger.scores(logits).float().cpu().numpy()
    return scores


def certainty(scores: NDArray[np.float32], tagger: Tagger) -> NDArray[np.float64]:
    """How sure a model is of each window, [R], from scores [R, C]: low is worth a question.

    Where several classes can hold at once, the distance of the class that is nearest to its threshold, in logits; where
    they exclude each other, the distance between the two best.
    """
    kept = scores.astype(np.float64).clip(SURE, 1 - SURE)
    if not tagger.multi_label:
        best = np.sort(kept, 1)
        margin: NDArray[np.float64] = best[:, -1] - best[:, -2] if kept.shape[1] > 1 else best[:, -1]
        return margin
    thresholds = np.array(tagger.config.thresholds or [MULTI_LABEL_THRESHOLD] * kept.shape[1]).clip(SURE, 1 - SURE)
    distance: NDArray[np.float64] = np.abs(logit(kept) - logit(thresholds)).min(1)
    return distance


def logit(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """log(p / (1 - p))."""
    odds: NDArray[np.float64] = np.log(shares) - np.log1p(-shares)
    return odds


def not_heard(table: EmbeddingTable, heard: Sequence[tuple[str, float]]) -> NDArray[np.bool_]:
    """Which windows [R] are none of those that begin at such seconds of such recordings."""
    known = {(path, round(start, DIGITS)) for path, start in heard}
    places = zip(table.paths.tolist(), table.starts.round(DIGITS).tolist(), strict=True)
    return np.array([place not in known for place in places], bool)


def apart(table: EmbeddingTable, order: Ids, free: NDArray[np.bool_], count: int) -> Ids:
    """The first `count` free rows of `order` of which none overlaps another, or one that is not free, by half."""
    taken: dict[str, list[tuple[float, float]]] = defaultdict(list)  # spans of each recording
    for row in np.flatnonzero(~free).tolist():
        taken[table.paths[row]].append((table.starts[row], table.ends[row]))
    found: list[int] = []
    for row in order.tolist():
        if len(found) == count:
            break
        start, end = float(table.starts[row]), float(table.ends[row])
        spans = taken[table.paths[row]]
        shared = max((min(end, b) - max(start, a) for a, b in spans), default=0.0)
        if free[row] and shared < (end - start) / 2:
            found.append(row)
            spans.append((start, end))
    return np.array(found, np.int64)


def most_different(library: Library, some: Ids, known: NDArray[np.bool_], count: int) -> Ids:
    """`count` of the rows `some`, each time the one that is least like any that is known [R] or picked already."""
    vectors = library.rows[some]
    nearest = np.full(len(some), -1.0, np.float32)  # cosine with the most similar of those
    for part in blocks(int(known.sum())):
        nearest = np.maximum(nearest, (vectors @ library.rows[np.flatnonzero(known)[part]].T).max(1))
    found: list[int] = []
    for _ in range(min(count, len(some))):
        place = int(nearest.argmin())
        found.append(int(some[place]))
        nearest = np.maximum(nearest, vectors @ vectors[place])
        nearest[place] = np.inf
    return np.array(found, np.int64)


def question(classes: Sequence[str], scores: NDArray[np.float32] | None) -> str:
    """What stands in the place of a label until somebody has heard the clip: the model's guess."""
    if scores is None:
        return QUESTION
    best = int(scores.argmax())
    return f"{QUESTION} {classes[best]} {scores[best]:.2f}"


def write_clips(
    out: Path, recordings: Recordings, table: EmbeddingTable, picks: Sequence[Pick], before: int
) -> list[ReviewClip]:
    """Write a WAV file for each pick, numbered behind the `before` clips that are there."""
    begin(out)
    clips = []
    for number, pick in enumerate(picks, start=before + 1):
        path, start, end = str(table.paths[pick.row]), float(table.starts[pick.row]), float(table.ends[pick.row])
        clip = ReviewClip(clip_name(number, path, start), path, start, end)
        recordings.write_clip(out / clip.clip, path, start, end)
        clips.append(clip)
    return clips


def write_table(
    out: Path, clips: Sequence[ReviewClip], picks: Sequence[Pick], recordings: Recordings, rate: int
) -> Path:
    """A selection table of all clips, which Raven opens beside them as one sequence of files; `rate` is the model's."""
    lines, begin = ["\t".join(RAVEN_COLUMNS)], 0.0
    for number, (clip, pick) in enumerate(zip(clips, picks, strict=True), start=1):
        seconds = clip.end - clip.start
        span = box(number, begin, begin + seconds, min(rate, recordings.rate(clip.path, rate)) / 2)
        lines.append(f"{span}\t{clip.clip}\t0.000000\t{one_line(pick.question)}")
        begin += seconds
    first, last = (clip.clip.partition(" ")[0] for clip in (clips[0], clips[-1]))
    path = out / f"{first}-{last}{RAVEN_ENDING}"
    write_atomic(path, "\n".join([*lines, ""]))
    return path


def write_tracks(out: Path, clips: Sequence[ReviewClip], picks: Sequence[Pick]) -> str:
    """A label track beside each clip, which Audacity imports."""
    for clip, pick in zip(clips, picks, strict=True):
        line = f"{0:.6f}\t{clip.end - clip.start:.6f}\t{one_line(pick.question)}\n"
        write_atomic((out / clip.clip).with_suffix(".txt"), line)
    return "the .txt beside each"
