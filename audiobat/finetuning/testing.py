"""A fine-tuned model and clips to what it says of them, how good that is, and the result record.

Clips are heard whole and one batch is as good as another: what is said of a clip does not depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from audiobat.config import FinetuneConfig, from_dict, to_dict
from audiobat.config.recipes import load_recipe
from audiobat.data.clip_table import ClipTable
from audiobat.data.loader import check_skipped, load_clips
from audiobat.engine.environment import environment
from audiobat.engine.ranks import Ranks
from audiobat.engine.run_folder import FREE_FIELDS, flat
from audiobat.errors import AudiobatError
from audiobat.evaluation.metrics import accuracy, average_precision, macro_map_present
from audiobat.evaluation.record import DataInfo, ModelInfo, ResultRecord
from audiobat.evaluation.scoring import Answers, evaluate, scores_of, values
from audiobat.finetuning.labels import Labels, Rows
from audiobat.models.losses import Loss
from audiobat.models.tagger import Tagger, valid_columns
from audiobat.probing.testing import Heard, frame_answers
from audiobat.probing.training import Predicted, cut

NOT_RECIPE = (*FREE_FIELDS, "recipe", "data.path", "train.seed", "train.precision")  # a recipe may be run with any of


@dataclass
class Work:
    """What a run took, in this process."""

    seconds: float = 0.0  # all in all
    training: float = 0.0  # seconds of it
    clips: int = 0  # that training took in, with repeats


@dataclass(frozen=True)
class Listener:
    """What hearing clips needs besides a model and the clips."""

    table: ClipTable
    labels: Labels  # of `table`
    task: Literal["clip", "frame"]
    loss: Loss
    ranks: Ranks
    precision: torch.dtype | None
    workers: int
    skipped: dict[str, str]  # key -> reason, of clips that could not be read; grows

    @property
    def single_label(self) -> bool:
        """Whether every answer has one class."""
        return self.task == "clip" and self.table.single_label

    @torch.no_grad()
    def ask(self, tagger: Tagger, rows: Rows) -> Predicted:
        """What `tagger`, in eval mode, says of the clips at `rows`, which the ranks share; the same on every rank."""
        mine = rows[self.ranks.rank :: self.ranks.world_size]
        parts = self.ranks.gather((list(self._answers(tagger, mine)), self.skipped))
        for _, skipped in parts:
            self.skipped.update(skipped)
        check_skipped(self.skipped, len(self.table), len(self.table))
        heard = [answer for answers, _ in parts for answer in answers]
        if not heard:
            raise AudiobatError(f"None of {len(rows)} clips can be read: see skipped.csv.")
        logits, labels, where, times = (torch.cat(column) for column in zip(*heard, strict=True))
        place = torch.zeros(len(self.table), dtype=torch.int64)
        place[torch.from_numpy(rows)] = torch.arange(len(rows))
        order = place[where].argsort(stable=True)  # as in `rows`; a clip's columns stay in order
        return Predicted([logits[order]], labels[order], where[order], times[order])

    def score(self, tagger: Tagger, rows: Rows) -> dict[str, float]:
        """How good `tagger` is on clips that choose weights: accuracy where a clip has one label, else macro mAP."""
        said = self.ask(tagger, rows)
        scores = scores_of(said.logits[0], self.loss)
        if self.single_label:
            return {"accuracy": float(accuracy(scores, said.labels.int().argmax(1), None))}
        return {"map": float(macro_map_present(average_precision(scores, said.labels)))}

    def test(self, tagger: Tagger, rows: Rows) -> tuple[Answers, Tensor]:
        """What `tagger` says of test clips, ready for metrics, and the clip of each answer."""
        said = self.ask(tagger, rows)
        if self.task == "frame":
            return frame_answers(self.loss, said.logits[0], said, self.table), said.rows
        return Answers(scores_of(said.logits[0], self.loss), said.labels, self.loss), said.rows

    def _answers(self, tagger: Tagger, rows: Rows) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """For each batch: logits [M, C], labels [M, C], rows [M] and times [M], on the CPU."""
        device = self.ranks.device
        for drawn in load_clips(self.table, tagger.sample_rate, cut(rows), self.workers):
            self.skipped.update(drawn.skipped)
            if not len(drawn.clip_ids):
                continue
            heard = drawn.to(device)
            with torch.autocast(device.type, self.precision, enabled=self.precision is not None):
                features = tagger.encoder.forward_intermediates(heard.waveform, heard.lengths)
                clip = self.task == "clip"
                logits = tagger.head(features) if clip else tagger.frame_logits(features)
            times, where = features.frame_times.cpu(), torch.from_numpy(drawn.clip_ids)
            labels = self.labels(drawn.clip_ids, np.zeros(len(drawn.clip_ids)), times) > 0
            logits = logits.float().cpu()
            if clip:
                yield logits, labels, where, torch.zeros(len(where))
            else:
                columns = valid_columns(features).cpu()
                row, column = columns.nonzero().T
                yield logits[columns], labels[columns], where[row], times[column]


@dataclass(frozen=True)
class Tested(Heard):
    """What the weights of the last step, or of the best validation, said to the test clips of one fold."""

    which: str  # last, best
    step: int  # steps done when they were kept
    validation: float | None  # what the validation said of the best


def record_of(
    model: ModelInfo, listener: Listener, folds: Mapping[str, Tested], config: FinetuneConfig, name: str, work: Work
) -> ResultRecord:
    """The record of `last` or `best` weights from what they said in each fold.

    Args:
        model: what was fine-tuned, as it was before.
        listener: asked the test clips.
        folds: test fold, or "" -> answers.
        config: of the run.
        name: what the record calls the clips.
        work: what training and testing took.
    """
    table = listener.table
    answers = {fold: one.answers for fold, one in folds.items()}
    first = next(iter(folds.values()))
    metrics, per_class = evaluate(list(answers.values()), table.classes, listener.single_label, config.train.seed)
    sizes = {fold: len(answer) for fold, answer in answers.items()}
    if len(folds) == 1:
        sizes = {"train": first.trained_on, "test": len(first.answers)}
    choice = {fold: {"step": one.step, "validation": one.validation} for fold, one in folds.items()}
    gates = [one.gate for one in folds.values() if one.gate is not None]
    here = environment()
    return ResultRecord(
        model=model,
        data=DataInfo(
            name=name,
            sha256=table.sha256(),
            clips=sizes,
            unreadable=len(listener.skipped),
            classes=len(table.classes),
            classes_present=int(torch.cat([a.targets for a in answers.values()]).any(0).sum()),
        ),
        head={
            "kind": "finetune",
            **settings(config),
            "task": listener.task,
            "loss": listener.loss,
            "selection": first.which,
            "selected": first.which == config.select.which,
            "choice": choice[""] if list(choice) == [""] else choice,
        },
        preset=preset_of(config),
        seed=config.train.seed,
        metrics=metrics,
        per_class=per_class,
        gate_weights=torch.stack(gates).mean(0).tolist() if gates else None,
        wall_seconds=work.seconds,
        clips_per_second=work.clips / max(work.training, 1e-9),
        device=str(listener.ranks.device),
        environment=here,
        git_commit=here["git_commit"],
        folds=None if len(folds) == 1 else {f: values(a, listener.single_label) for f, a in answers.items()},
    )


def settings(config: FinetuneConfig) -> dict[str, object]:
    """Every setting that matters; those of training under the names that probes' records give them, such as `lr`."""
    fields = {name: value for name, value in flat(to_dict(config)) if name not in NOT_RECIPE}
    return {name.removeprefix("train.").removeprefix("optim."): value for name, value in fields.items()}


def preset_of(config: FinetuneConfig) -> str:
    """The recipe that the config says it is, if it is, but for what does not change a method; else `custom`."""
    if config.recipe is None:
        return "custom"
    try:
        meant = dict(flat(to_dict(from_dict(FinetuneConfig, load_recipe(config.recipe)))))
    except AudiobatError:  # it is none of ours any more
        return "custom"
    same = all(meant[field] == value for field, value in flat(to_dict(config)) if field not in NOT_RECIPE)
    return config.recipe if same else "custom"
