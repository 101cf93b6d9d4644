"""Labels as targets: of clips and patch columns, for crops and whole clips, against plain loops over the lists."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from audiobat.config import AugmentConfig, FinetuneConfig, FinetuneTrainConfig, ProbeConfig
from audiobat.data.build import clip_table
from audiobat.errors import AudiobatError
from audiobat.evaluation.labels import Task, pick_loss, task_for, untaught
from audiobat.models.features import LayerFeatures

CLASSES = ("ant", "bee", "cicada")
LABELS = [["ant"], ["bee", "cicada"], [], ["cicada"], ["bee"]]
EVENTS = [[("bee", 0.1, 0.4)], [("ant", 0.0, 0.2), ("cicada", 0.3, 0.45)], [], [("cicada", 0.0, 0.5)], []]
COLUMNS, HOP = 5, 0.1


def labelled():
    return clip_table("", [f"{i}.wav" for i in range(5)], labels=LABELS, classes=CLASSES)


def with_events():
    return clip_table("", [f"{i}.wav" for i in range(5)], events=EVENTS, classes=CLASSES)


def features(lengths: list[int]) -> LayerFeatures:
    """Of clips with so many valid patch columns of two patches each; the last column may be half padding."""
    valid = torch.arange(COLUMNS)[None] < torch.tensor(lengths)[:, None]
    valid = valid.repeat_interleave(2, dim=1)
    valid[:, 2 * np.array(lengths) - 1] &= torch.eye(len(lengths), dtype=torch.bool).logical_not()  # upper patch gone
    tokens = torch.randn(1, len(lengths), 2 * COLUMNS, 4)
    return LayerFeatures(tokens, None, (COLUMNS, 2), valid, HOP * torch.arange(COLUMNS))


class Columns(torch.nn.Module):
    """Logits that name the clip's place in the batch and the column."""

    def forward(self, features: LayerFeatures) -> torch.Tensor:
        return torch.arange(len(features.valid))[:, None].expand(-1, 3).float()

    def frames(self, features: LayerFeatures) -> torch.Tensor:
        clips, columns = len(features.valid), features.grid[0]
        return (10 * torch.arange(clips)[:, None, None] + torch.arange(columns)[:, None]).expand(-1, -1, 3).float()


def sounding(clip: int, second: float) -> list[bool]:
    return [any(name == c and a - 1e-9 <= second < b - 1e-9 for name, a, b in EVENTS[clip]) for c in CLASSES]


def test_a_crop_has_the_labels_of_its_clip():
    task = task_for(ProbeConfig(), labelled())
    assert (task.unit, task.classes, task.single_label) == ("clip", 3, False)
    ids = np.array([3, 1, 2])
    expected = [[c in LABELS[i] for c in CLASSES] for i in ids]
    assert task.targets(ids, torch.zeros(4), np.array([0.0, 2.0, 1.0])).tolist() == expected
    assert task.labels(ids, features([1, 2, 5])).tolist() == expected
    assert torch.equal(
        Task.of_matrix(torch.tensor(labelled().targets()), False).targets(ids, torch.zeros(4)),
        task.targets(ids, torch.zeros(4)),
    )


@pytest.mark.parametrize("starts", [None, np.array([0.05, 0.25, 0.0])])
def test_events_of_a_crop_are_those_that_sound_at_its_columns(starts):
    task = task_for(ProbeConfig(), with_events())
    ids = np.array([1, 0, 3])
    found = task.targets(ids, HOP * torch.arange(COLUMNS), starts)
    begin = np.zeros(3) if starts is None else starts
    assert found.tolist() == [
        [sounding(i, s + HOP * t) for t in range(COLUMNS)] for i, s in zip(ids, begin, strict=True)
    ]


def test_rows_of_a_batch_agree_about_clip_column_and_label():
    """Logits, labels, places and rows list the same columns in the same order, and none that is all padding."""
    task = task_for(ProbeConfig(task="frame"), with_events())
    ids, lengths = np.array([3, 0, 1]), [2, 5, 1]
    seen = features(lengths)
    logits = task.logits(Columns(), seen)
    clips, times = task.places(ids, seen)
    expected = [(b, t) for b, length in enumerate(lengths) for t in range(length)]
    assert logits[:, 0].tolist() == [10 * b + t for b, t in expected]
    assert clips.tolist() == [ids[b] for b, _ in expected]
    assert times.tolist() == pytest.approx([HOP * t for _, t in expected])
    labels = task.labels(ids, seen)
    assert labels.tolist() == [sounding(ids[b], HOP * t) for b, t in expected]
    assert torch.equal(task.rows(task.targets(ids, seen.frame_times), seen), labels)


def test_the_task_follows_the_settings_and_the_clips():
    assert task_for(ProbeConfig(task="clip"), with_events()).unit == "clip"
    assert task_for(FinetuneConfig(augment=AugmentConfig()), with_events()).unit == "frame"
    with pytest.raises(AudiobatError, match="the clips have no events with onset and offset"):
        task_for(FinetuneConfig(task="frame"), labelled())
    with pytest.raises(AudiobatError, match="The clips have no labels"):
        task_for(ProbeConfig(), replace(labelled(), labels=None))


def test_the_loss_suits_the_labels():
    train = FinetuneTrainConfig()
    assert [pick_loss(train, single) for single in (True, False)] == ["ce", "bce"]
    assert pick_loss(replace(train, loss="asl"), True) == "asl"
    with pytest.raises(AudiobatError, match=r"train.loss is ce, but some clips have several labels or none"):
        pick_loss(replace(train, loss="ce"), False)


def test_classes_without_training_clips_are_counted_over_the_folds():
    table = labelled()
    assert untaught(table, [(np.array([0, 1]), np.array([3, 4]))]) == {}
    folds = [(np.array([0]), np.array([1, 3])), (np.array([1, 2]), np.array([0, 3, 4]))]
    assert untaught(table, folds) == {"ant": 1, "bee": 1, "cicada": 2}
