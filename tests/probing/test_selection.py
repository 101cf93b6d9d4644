"""Learning rate and weight decay chosen on held-out training clips: the best there, test clips never looked at."""

from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor

from audiobat.config import GridConfig, HeadConfig, ProbeConfig, ProbeTrainConfig
from audiobat.data.build import clip_table
from audiobat.data.clip_table import ClipTable
from audiobat.data.split import Split, hashed_share
from audiobat.errors import AudiobatError
from audiobat.evaluation.labels import Task
from audiobat.models.features import LayerFeatures
from audiobat.probing import selection
from audiobat.probing.cache import FeatureSource, cache_features
from audiobat.probing.jobs import candidates, head_jobs
from audiobat.probing.one_pass import probe_splits
from audiobat.probing.plan import make_plan
from audiobat.probing.selection import HELD_OUT, choose_jobs
from audiobat.probing.training import predict, train_head

CLASSES = ("a", "b", "c")
TRAIN, TEST = np.arange(60), np.arange(60, 90)
GRID = GridConfig(lr=(1e-4, 3e-2), weight_decay=(0.0, 0.5), choose=True)
CONFIG = ProbeConfig(
    head=HeadConfig("linear", prototypes=8),
    train=ProbeTrainConfig(steps=60, warmup_steps=5, batch_size=8),
    grid=GRID,
    heads=("linear", "cgp", "knn"),
    seeds=(3, 4),
)


class Means:
    """An encoder of one block and one patch: the loudness of eight pieces of a clip."""

    sample_rate, dim, depth = 8000, 8, 1

    def forward_intermediates(self, waveform: Tensor, lengths: Tensor | None = None) -> LayerFeatures:
        pieces = waveform[:, :800].unflatten(1, (8, -1)).abs().mean(2)[None, :, None]  # [1, B, 1, 8]
        return LayerFeatures(pieces, None, (1, 1), torch.ones(len(waveform), 1, dtype=torch.bool), torch.zeros(1))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> ClipTable:
    """90 clips, three takes of each of 30 recordings; in class c the piece c is a little louder than the others."""
    folder = tmp_path_factory.mktemp("takes")
    rng = np.random.default_rng(0)
    names = [f"{i:02d}.wav" for i in range(90)]
    for i, name in enumerate(names):
        loud = rng.uniform(0.05, 0.2, 8)
        loud[i // 3 % 3] += 0.1
        soundfile.write(folder / name, np.repeat(loud, 100) * rng.choice([-1, 1], 800), 8000)
    columns = {"group": [f"take {i // 3}" for i in range(90)]}
    return clip_table(
        folder, names, classes=CLASSES, labels=[[CLASSES[i // 3 % 3]] for i in range(90)], columns=columns
    )


@pytest.fixture(scope="module")
def source(table: ClipTable) -> FeatureSource:
    return cache_features(Means(), table, progress=False)


def task_of(table: ClipTable) -> Task:
    return Task.of_matrix(torch.from_numpy(table.targets()), True)


def choose(source: FeatureSource, table: ClipTable, config: ProbeConfig = CONFIG):
    return choose_jobs(source, table, TRAIN, task_of(table), head_jobs(config, 1), config.grid)


def test_the_best_on_a_held_out_tenth_is_chosen(source, table):
    """Each candidate's score is what a run of its own, without the held-out clips, says of them."""
    jobs, choices = choose(source, table)
    held = hashed_share(table.select(TRAIN), HELD_OUT)
    assert held.sum() == choices["linear"].held_out == 9  # of 60: three takes of one recording for each class
    targets = torch.from_numpy(table.targets())
    for base in head_jobs(CONFIG, 1)[:2]:
        scores = []
        for job in candidates(base, GRID):
            head, _ = train_head(source, TRAIN[~held], targets, job.head, job.train, 3, True)
            said = predict(head, source, TRAIN[held]).log_softmax(1)
            scores.append(average_precision_score(targets[TRAIN[held]], said, average="macro"))
        choice = choices[base.name]
        assert [one.score for one in choice.candidates] == pytest.approx(scores, abs=1e-5)
        pairs = [(lr, decay) for lr in GRID.lr for decay in GRID.weight_decay]
        assert [(one.lr, one.weight_decay) for one in choice.candidates] == pairs
        order = sorted(range(4), key=lambda i: -scores[i])
        assert (choice.chosen.lr, choice.chosen.weight_decay) == pairs[order[0]]
        assert (choice.runner_up.lr, choice.runner_up.weight_decay) == pairs[order[1]]
        [job] = [job for job in jobs if job.name == base.name]
        assert (job.train.lr, job.train.weight_decay) == pairs[order[0]]
    assert choices["linear"].chosen.lr == 3e-2  # 1e-4 is too low to learn anything in 60 steps


def test_takes_of_a_recording_are_on_one_side(table):
    held = hashed_share(table.select(TRAIN), HELD_OUT)
    takes = np.array(table.columns["group"].tolist())[TRAIN]
    assert not set(takes[held]) & set(takes[~held])
    assert {int(row) // 3 % 3 for row in TRAIN[held]} == {0, 1, 2}  # every class


def test_test_clips_are_never_looked_at(table):
    """Features of training clips alone are enough to choose."""
    source = cache_features(Means(), table, progress=False)
    blind = FeatureSource(Means(), table, TRAIN, {}, source._store, source.device, 1)
    with pytest.raises(AudiobatError, match="has no features"):
        blind.batch(TEST[:1])
    assert choose(blind, table) == choose(source, table)


def test_what_is_not_trained_has_nothing_to_choose(source, table):
    jobs, choices = choose(source, table)
    assert [job.name for job in jobs] == ["linear", "cgp", "knn"]
    assert set(choices) == {"linear", "cgp"}


def test_of_equals_the_first_in_the_grid_is_chosen(source, table, monkeypatch):
    monkeypatch.setattr(selection, "macro_map_present", lambda precision: torch.tensor(0.5))
    _, choices = choose(source, table)
    assert choices["cgp"].chosen == choices["cgp"].candidates[0]
    assert choices["cgp"].runner_up == choices["cgp"].candidates[1]


def test_a_rate_that_comes_apart_is_left_behind(source, table):
    wild = replace(CONFIG, heads=("linear",), grid=GridConfig(lr=(1e30, 1e-2), choose=True))
    jobs, choices = choose(source, table, wild)
    assert jobs[0].train.lr == 1e-2
    assert [one.score is None for one in choices["linear"].candidates] == [True, False]
    assert choices["linear"].runner_up.score is None
    worse = replace(wild, grid=GridConfig(lr=(1e30, 1e31), choose=True))
    with pytest.raises(AudiobatError, match=r"every candidate for head linear became infinite: lower grid\.lr"):
        choose(source, table, worse)


def test_training_clips_of_one_recording_cannot_be_divided(source, table):
    with pytest.raises(AudiobatError, match="Nothing can be held out of 3 training clips in one group"):
        choose_jobs(source, table, np.arange(3), task_of(table), head_jobs(CONFIG, 1), GRID)


def test_records_tell_the_choice_of_each_fold_and_every_seed_has_it(source, table):
    splits = [Split(TRAIN, TEST, fold="1"), Split(np.arange(30, 90), np.arange(30), fold="2")]
    found = [one for one, _ in probe_splits("net", Means(), source, make_plan(table, splits, CONFIG, depth=1))]
    assert [(one.name, one.record.seed) for one in found] == [(k, s) for k in CONFIG.heads for s in (3, 4)]
    for one in found:
        head = one.record.head
        if one.name == "knn":
            assert "choice" not in head
            continue
        assert set(head["choice"]) == {"1", "2"}
        rates = {choice["chosen"]["lr"] for choice in head["choice"].values()}
        assert head["lr"] == (rates.pop() if len(rates) == 1 else None)
        for choice in head["choice"].values():
            assert len(choice["candidates"]) == 4
            assert (
                choice["chosen"]["score"]
                >= choice["runner_up"]["score"]
                >= min(one["score"] for one in choice["candidates"])
            )
