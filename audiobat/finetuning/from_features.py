"""`audiobat finetune --features`: a head on a model's stored embeddings, without a pass over the audio.

In: a table of `audiobat embed`, annotations of its recordings, marks made in clips for review. Out: a run folder with a
release, whose head gives a window of audio the logits that it gives the window's stored vector, and a record: of heads
that have not seen the recordings that test them. The release's head learns from all.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audiobat.config import FinetuneConfig, HeadConfig, LabelConfig, TaggerConfig, check, flatten, to_dict
from audiobat.data.clip_table import ClipTable
from audiobat.data.embeddings import AGAIN, EmbeddingTable, read_embeddings
from audiobat.data.folds import describe_folds, with_folds
from audiobat.data.sources.read import read_annotations, read_labelled_clips
from audiobat.data.split import Split, split_for_probe
from audiobat.engine.ranks import Ranks
from audiobat.engine.run_folder import prepare_run, sole_use
from audiobat.engine.tensors import weights_sha256
from audiobat.errors import AudiobatError
from audiobat.evaluation.labels import pick_loss
from audiobat.evaluation.metrics.thresholds import thresholds_by_rate
from audiobat.evaluation.record import ResultRecord
from audiobat.evaluation.results import FoldResult, Result, RunInfo, build_result, model_info, summary
from audiobat.evaluation.scoring import ClipOutputs, scores_of
from audiobat.finetuning.logistic import fit_logistic
from audiobat.finetuning.review_list import list_of_taught, read_review
from audiobat.finetuning.window_labels import LabelledWindows, Source, label_windows
from audiobat.models.encoder import AudioEncoder
from audiobat.models.losses import Loss
from audiobat.models.tagger import Tagger
from audiobat.zoo import release as release_io
from audiobat.zoo.load import load_encoder, short_name

FOLDS = 5  # that test, where the data name no split; fewer for fewer recordings
NAME = "features"  # of the head, in the names of records
NEEDED = ("weights", "layer", "pool", "window_seconds", "hop_seconds")  # facts that a table must have
USED = ("train.loss", "train.seed", "train.device", "data.path")  # the settings that count here


@dataclass(frozen=True, eq=False)
class Lesson:
    """The labelled windows of a table as arrays, and how they are divided."""

    windows: LabelledWindows
    vectors: NDArray[np.float32]  # [n, D]
    targets: NDArray[np.bool_]  # [n, C]
    loss: Loss
    splits: Sequence[Split]  # each tests once; none: all windows are of one recording
    folds: Sequence[Split]  # of the windows that teach: what the others teach of each chooses thresholds
    taught: NDArray[np.int64]  # the windows that the release's head learns from

    @property
    def table(self) -> ClipTable:
        """A clip for each window."""
        return self.windows.table

    def fit(self, ids: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """The matrix and the bias of a head that has learnt from some windows."""
        return fit_logistic(self.vectors[ids], self.targets[ids], self.loss)

    def unseen(self, splits: Sequence[Split]) -> tuple[NDArray[np.int64], Tensor]:
        """The windows that the splits test, [m], and the scores [m, C] that heads give them that have not seen them."""
        logits = torch.zeros(self.targets.shape)
        for split in splits:
            weight, bias = self.fit(split.train)
            logits[split.test] = torch.from_numpy(self.vectors[split.test]) @ weight.T + bias
        tested = np.sort(np.concatenate([split.test for split in splits]))
        return tested, scores_of(logits[tested], self.loss)

    @cached_property
    def by_fold(self) -> tuple[NDArray[np.int64], Tensor]:
        """The same for the folds of the windows that teach."""
        return self.unseen(self.folds)

    def test(self) -> FoldResult:
        """The outputs for the windows that test."""
        tested, scores = self.by_fold if self.splits is self.folds else self.unseen(self.splits)
        outputs = ClipOutputs(scores, torch.from_numpy(self.targets[tested]), self.loss)
        return FoldResult(None, self.taught, tested, outputs, torch.from_numpy(tested), None)

    def thresholds(self) -> tuple[float, ...]:
        """The threshold of each class [C], chosen on windows that teach; none where classes exclude each other."""
        if self.loss == "ce" or not self.folds:
            return ()
        tested, scores = self.by_fold
        return tuple(thresholds_by_rate(scores.sigmoid(), torch.from_numpy(self.targets[tested])).tolist())


def finetune_features(
    model: str | Path,
    data: Sequence[str | Path],
    out: Path,
    config: FinetuneConfig,
    features: str | Path,
    folds: int | None,
    test_fold: int | None,
    ranks: Ranks,
    *,
    resume: str,
    overwrite: bool,
    dry_run: bool,
    trust_remote_code: bool,
) -> list[ResultRecord]:
    """Fit a linear head to the labelled windows of `features`; the arguments are those of `finetune`.

    Raises:
        AudiobatError: settings that have no meaning here, embeddings of another model, no label for any window.
    """
    if not ranks.is_main:
        return []  # there is too little to divide
    start = monotonic()
    check_settings(config)
    index = read_embeddings(features)
    encoder = encoder_of(model, index, trust_remote_code)
    windows = label_windows(index, [source_of(name, config.labels) for name in data])
    lesson = plan(windows, index, config, folds, test_fold)
    for line in describe(lesson, index):
        print(line)
    if dry_run:
        return []
    name, arguments = short_name(model), {"folds": folds, "test_fold": test_fold}
    with sole_use(out):
        prepare_run(out, config, resume, overwrite, {"model": str(model), "features": str(features), **arguments})
        if (out / release_io.RELEASE).exists():
            raise AudiobatError(f"{out} is finished: choose another --out, or replace it with --overwrite.")
        info = model_info(name, encoder)
        head = HeadConfig(kind="linear", layer=index.meta["layer"], pool=index.meta["pool"], norm="none")
        tagger = tagger_of(encoder, head, lesson, index.meta)
        results: list[Result] = []
        if lesson.splits:
            run = RunInfo(info, Path(features).stem, lesson.table, lesson.table.single_label, "cpu", {})
            settings = {
                "kind": "linear",
                "layer": head.layer,
                "pool": head.pool,
                "loss": lesson.loss,
                "fit": "logistic",
            }
            result = build_result(
                NAME,
                [lesson.test()],
                run,
                head=settings | {"folds": len(lesson.splits)},
                preset="custom",
                seed=config.train.seed,
                wall_seconds=monotonic() - start,
                clips_per_second=None,
            )
            results = [result.save(out)]
        extra = {
            "finetuned_from": {"model": info.id, "sha256": info.sha256},
            "data_sha256": lesson.table.sha256(),
            "features": {fact: index.meta[fact] for fact in NEEDED},
        }
        rows = windows.rows[lesson.taught]
        taught = zip(index.paths[rows].tolist(), index.starts[rows], index.ends[rows], strict=True)
        release_io.save_release(out / release_io.RELEASE, tagger, extra=extra, files=list_of_taught(taught))
        for result in results:
            print(summary("a head on stored embeddings", result.record))
        print(f"release: {out / release_io.RELEASE}")
    return [result.record for result in results]


def check_settings(config: FinetuneConfig) -> None:
    """Raise an AudiobatError for a setting that has no say where no step is made."""
    own, usual = flatten(to_dict(config)), flatten(to_dict(FinetuneConfig()))
    for name, value in own.items():
        if name not in USED and value != usual.get(name) and not name.startswith(("data.", "labels.")):
            raise AudiobatError(
                f"{name} is {value}, and has no say with --features, which fits a linear head to stored embeddings: "
                "leave it out, and --config too."
            )
    check(config.train.loss != "asl", "train.loss", config.train.loss, "with --features use bce, ce or auto")


def encoder_of(model: str | Path, index: EmbeddingTable, trust_remote_code: bool) -> AudioEncoder:
    """The model, which must be the one that made the embeddings."""
    if missing := [fact for fact in NEEDED if fact not in index.meta]:
        raise AudiobatError(f"{index.source} does not say its {missing[0]}: {AGAIN}.")
    encoder = load_encoder(model, trust_remote_code=trust_remote_code)
    if not isinstance(encoder, AudioEncoder):
        raise AudiobatError(f"{model} is no encoder of audiobat's own, as fine-tuning needs: give a release or a run.")
    if weights_sha256(encoder) != index.meta["weights"]:
        raise AudiobatError(
            f"{index.source} has the embeddings of another model, {index.meta.get('model')}: give --model that one, or "
            "embed anew."
        )
    return encoder


def source_of(name: str | Path, labels: LabelConfig) -> Source:
    """The labels that one --data brings, and the list of windows if it is a review."""
    if not (review := read_review(name)):
        return Source(str(name), read_labelled_clips(name, labels.column, labels.background, labels.map))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a clip without a row is one in which nothing was found
        return Source(str(name), read_annotations(name), review)


def plan(
    windows: LabelledWindows, index: EmbeddingTable, config: FinetuneConfig, folds: int | None, test_fold: int | None
) -> Lesson:
    """How the windows are divided: by their own splits or folds, else in folds that keep recordings whole."""
    table, taught = with_folds(windows.table, folds), np.arange(len(windows.table))
    if table.splits is not None or test_fold is not None:
        splits = [Split(*split_for_probe(table, test_fold))]
        taught = splits[0].train
        own = folds_of(replace(table.select(taught), splits=None, folds=None))
        inner = [Split(taught[one.train], taught[one.test]) for one in splits_by_fold(own)]
    else:
        table = folds_of(table)
        splits = inner = splits_by_fold(table)
    loss = pick_loss(config.train, table.single_label)
    windows = replace(windows, table=table)
    return Lesson(windows, index.vectors[windows.rows], table.targets(), loss, splits, inner, taught)


def folds_of(table: ClipTable) -> ClipTable:
    """The windows with folds that keep recordings whole: their own, or drawn; without, if there is one recording."""
    groups = len(set(table.columns["group"]))
    return table if table.folds is not None or groups == 1 else with_folds(table, min(FOLDS, groups))


def splits_by_fold(table: ClipTable) -> list[Split]:
    """Each fold tests what the others teach."""
    if table.folds is None:
        return []
    numbers = sorted(set(table.folds.tolist()))
    return [Split(np.flatnonzero(table.folds != fold), np.flatnonzero(table.folds == fold)) for fold in numbers]


def describe(lesson: Lesson, index: EmbeddingTable) -> Iterator[str]:
    """Which windows have labels, which test, and what is left out."""
    windows, table = lesson.windows, lesson.table
    recordings = len(set(index.paths[windows.rows].tolist()))
    marked = int(lesson.targets.any(1).sum())
    yield (
        f"windows: {len(table):,} of {len(index):,} are known, in {recordings:,} recordings; {marked:,} have a label, "
        f"of {len(table.classes)} classes"
    )
    if lesson.loss == "ce":
        yield (
            "head: one class for every window, silence too, as each known window has exactly one label; windows "
            "without a label, or --train.loss bce, teach it to name none"
        )
    if windows.open:
        yield f"open: {windows.open:,} clips of reviews still have a question mark, and are left out"
    if windows.unknown:
        yield f"left out: {len(windows.unknown):,} recordings without an embedding, such as {windows.unknown[0]}"
    if not lesson.splits:
        yield "test: none, as all windows are of one recording"
    elif len(lesson.splits) > 1:
        yield describe_folds(table).replace("clips", "windows")
    else:
        yield f"split: {len(lesson.taught):,} windows train, {len(lesson.splits[0].test):,} test"


def tagger_of(encoder: AudioEncoder, head: HeadConfig, lesson: Lesson, facts: Mapping[str, Any]) -> Tagger:
    """The encoder with a head that has learnt from all windows that may teach; `facts` on them are the table's."""
    config = TaggerConfig(
        head,
        lesson.table.classes,
        "clip",
        multi_label=lesson.loss != "ce",
        thresholds=lesson.thresholds(),
        window_seconds=facts["window_seconds"],
        hop_seconds=facts["hop_seconds"],
    )
    tagger = Tagger(encoder, config)
    weight, bias = lesson.fit(lesson.taught)
    tagger.head.load_state_dict({"classifier.weight": weight, "classifier.bias": bias})
    return tagger.eval()
