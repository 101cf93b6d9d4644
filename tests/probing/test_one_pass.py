"""One pass, many heads: each is what it would be alone, and heads, seeds and folds never cost another encoder pass."""

import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor, nn

from audiobat.config import GridConfig, HeadConfig, ProbeConfig, ProbeTrainConfig
from audiobat.data.build import clip_table
from audiobat.data.clip import read_clip
from audiobat.data.clip_table import ClipTable
from audiobat.data.split import Split
from audiobat.evaluation.labels import Task, task_for
from audiobat.models.features import LayerFeatures
from audiobat.probing.cache import cache_features
from audiobat.probing.jobs import HeadJob, layer_jobs
from audiobat.probing.run import probe
from audiobat.probing.training import draw_clips, evaluate_heads, predict_heads, train_heads

RATE = 8000
HOP = 400  # samples of a patch column
CLASSES = ("a", "b", "c")
SHARING = (
    "cgp",
    "protobin",
    "linear",
    "linear_cgp",
    "attentive",
    "ep",
    "head2toe",
    "proto_classwise",
    "knn",
    "mean_time_keep_freq",
)
HEAD = HeadConfig(prototypes=12, dropout=0.3, queries=4, per_class=3, neighbours=3)
TRAIN = ProbeTrainConfig(steps=20, warmup_steps=2, batch_size=6, lr=1e-2)
JOBS = [
    HeadJob(f"{kind}_{seed}", replace(HEAD, kind=kind), replace(TRAIN, seed=seed))
    for kind in SHARING
    for seed in (0, 5)
]


class Counting(nn.Module):
    """An encoder of three blocks that tells which clips it was asked for: a clip's first sample is its number."""

    sample_rate, dim, depth = RATE, 16, 3

    def __init__(self) -> None:
        super().__init__()
        weights = torch.randn(self.depth, HOP // 2, self.dim, generator=torch.Generator().manual_seed(0))
        self.weights = nn.Parameter(weights / HOP**0.5)
        self.asked: list[list[int]] = []

    def forward_intermediates(self, waveform: Tensor, lengths: Tensor | None = None) -> LayerFeatures:
        assert lengths is not None
        self.asked.append((waveform[:, 0] * 2**15).round().int().tolist())
        count = -(-waveform.shape[1] // HOP)
        samples = nn.functional.pad(waveform, (0, count * HOP - waveform.shape[1])).unflatten(1, (2 * count, -1))
        patches = torch.einsum("bns,lsd->lbnd", samples * 10, self.weights).tanh()  # [L, B, T * 2, D]
        valid = (torch.arange(count) * HOP < lengths[:, None]).repeat_interleave(2, dim=1)
        own = valid[:, :, None] / valid.sum(1)[:, None, None]
        cls = (patches * own).sum(2)  # [L, B, D]
        return LayerFeatures(patches, cls, (count, 2), valid, torch.arange(count) * HOP / RATE)

    def clips(self) -> Counter[int]:
        """How often each clip was encoded since the last look."""
        asked, self.asked = self.asked, []
        return Counter(number for batch in asked for number in batch)


def write_clips(folder: Path, count: int) -> list[str]:
    """Noise of 0.15 to 0.4 s; clip i begins with the sample i / 2^15."""
    rng = np.random.default_rng(0)
    for i in range(count):
        samples = rng.normal(scale=0.1, size=int(rng.uniform(0.15, 0.4) * RATE))
        samples[0] = i / 2**15
        soundfile.write(folder / f"{i:02d}.wav", samples, RATE)
    return [f"{i:02d}.wav" for i in range(count)]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> ClipTable:
    """30 clips, each with one event or two."""
    folder = tmp_path_factory.mktemp("noise")
    events = [[(CLASSES[i % 3], 0.0, 0.1)] + [("b", 0.05, 0.3)] * (i % 2) for i in range(30)]
    return clip_table(
        folder, write_clips(folder, 30), classes=CLASSES, events=events, splits=["train"] * 20 + ["test"] * 10
    )


@pytest.fixture(scope="module")
def folded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 clips of one label each, in five folds."""
    folder = tmp_path_factory.mktemp("folds")
    names = write_clips(folder, 30)
    with (folder / "clips.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [("path", "label", "fold"), *((name, CLASSES[i % 3], i // 6) for i, name in enumerate(names))]
        )
    return folder / "clips.csv"


@pytest.mark.parametrize("unit", ["clip", "frame"])
@pytest.mark.parametrize("cache_gb", [8.0, 0.0], ids=["kept", "anew"])
def test_logits_in_company_are_those_alone(table, cache_gb: float, unit: str):
    """Every kind that shares the pass, in two seeds and with dropout, and the probes of all blocks: 1e-5 relative."""
    source = cache_features(Counting(), table, cache_gb=cache_gb, progress=False)
    task = task_for(ProbeConfig(task=unit), table)
    train, test = np.arange(20), np.arange(20, 30)
    jobs = [*JOBS, *layer_jobs(3, TRAIN)]
    together, _ = train_heads(source, train, task, jobs)
    said = predict_heads(together, source, test, task)
    for job, logits in zip(jobs, said.logits, strict=True):
        alone, _ = train_heads(source, train, task, [job])
        [own] = predict_heads(alone, source, test, task).logits
        difference = (logits - own).abs().max() / own.abs().max()
        assert difference <= 1e-5, (job.name, float(difference))
        assert logits.std() > 0


class Hearing(Counting):
    """One that keeps what it hears: the samples of each clip without its padding, batch after batch."""

    def forward_intermediates(self, waveform: Tensor, lengths: Tensor | None = None) -> LayerFeatures:
        features = super().forward_intermediates(waveform, lengths)
        self.asked[-1] = [wave[:n].numpy() for wave, n in zip(waveform, lengths.tolist(), strict=True)]
        return features


@pytest.mark.parametrize("cache_gb", [8.0, 0.0], ids=["kept", "anew"])
def test_rolled_clips_are_rolled_anew_in_every_batch_and_no_others(table, cache_gb: float):
    """Each clip is heard from another sample on; seed, step and place decide from which."""
    encoder = Hearing()
    source = cache_features(encoder, table, cache_gb=cache_gb, progress=False)
    whole = {number: read_clip(table, number, RATE) for number in range(30)}
    task = Task.of_matrix(torch.from_numpy(table.targets()), False)
    train = replace(TRAIN, roll=True, steps=40)

    def heard(train: ProbeTrainConfig, kinds: tuple[str, ...]) -> list[list[int]]:
        """The sample from which each clip of each batch was heard."""
        encoder.asked.clear()
        jobs = [HeadJob(kind, replace(HEAD, kind=kind), train) for kind in kinds]
        train_heads(source, np.arange(20), task, jobs)
        assert len(encoder.asked) == train.steps
        turns = []
        for waves, ids in zip(encoder.asked, draw_clips(np.arange(20), train, train.steps), strict=True):
            turns.append([])
            for wave, number in zip(waves, ids.tolist(), strict=True):
                own = whole[number]
                [turn] = [n for n in range(len(own)) if wave[n] == own[0] and np.array_equal(np.roll(own, n), wave)]
                turns[-1].append(turn / len(own))
        return turns

    turns = heard(train, ("cgp", "linear"))
    assert heard(train, ("cgp",)) == turns
    assert heard(train, ("linear",)) == turns, "also for heads that look at means alone"
    assert heard(replace(train, seed=5), ("cgp",)) == turns, "heads of all seeds share the pass"
    assert heard(replace(train, order_seed=1), ("cgp",)) != turns
    flat = np.array(turns).flatten()
    assert flat.mean() == pytest.approx(0.5, abs=0.1)
    assert np.histogram(flat, 4, (0, 1))[0].min() > len(flat) / 8
    once = HeadJob("cgp", HEAD, replace(train, steps=1, warmup_steps=0))
    [trainer], _ = train_heads(source, np.arange(20), task, [once])
    encoder.asked.clear()
    evaluate_heads([trainer], source, table, Split(np.arange(20), np.arange(20, 30)), task)
    said = [wave for waves in encoder.asked for wave in waves]
    assert all(any(np.array_equal(wave, own) for own in whole.values()) for wave in said), "as they are"
    assert bool(said) == (cache_gb == 0)


def test_dropout_is_on_while_heads_are_compared(table):
    """Else the equality above would say nothing of it."""
    source = cache_features(Counting(), table, progress=False)
    task = Task.of_matrix(torch.from_numpy(table.targets()), False)
    for kind in set(SHARING) - {"knn"}:
        pair = [HeadJob(kind, replace(HEAD, kind=kind, dropout=rate), TRAIN) for rate in (0.0, 0.3)]
        trainers, _ = train_heads(source, np.arange(20), task, pair)
        weights = [trainer.head.classifier.weight for trainer in trainers]
        assert not torch.equal(*weights), kind


EVERYTHING = ProbeConfig(
    head=HEAD,
    train=replace(TRAIN, steps=5, warmup_steps=1),
    heads=("cgp", "linear", "knn"),
    layers=True,
    seeds=(0, 1, 2, 3, 4),
    workers=0,
)


def test_folds_seeds_and_heads_cost_one_encoder_pass(folded, capsys):
    encoder = Counting()
    records = probe(encoder, folded, EVERYTHING, device="cpu")
    assert encoder.clips() == Counter(range(30))
    assert len(records) == 5 * (3 + 3)  # seeds, times heads and blocks
    assert all(list(record.folds) == ["0", "1", "2", "3", "4"] for record in records)
    assert all(record.metrics["accuracy"].sd is not None for record in records)


def test_choosing_on_held_out_clips_costs_no_other_pass(folded, capsys):
    encoder = Counting()
    grid = GridConfig(prototypes=(4, 6), lr=(1e-3, 1e-2), weight_decay=(0.0, 0.5), choose=True)
    config = replace(EVERYTHING, grid=grid, seeds=(0, 1), layers=False)
    records = probe(encoder, folded, config, device="cpu")
    assert encoder.clips() == Counter(range(30))
    assert len(records) == 2 * (2 + 1 + 1)  # seeds, times two prototype counts, linear and knn


def test_later_runs_read_features_from_disk(folded, tmp_path, capsys):
    """Other heads, seeds or folds: another run encodes one batch, to see that the encoder still says the same."""
    config = replace(EVERYTHING, cache_dir=str(tmp_path / "cache"), layers=False, seeds=(0, 1))
    encoder = Counting()
    first = probe(encoder, folded, config, device="cpu")
    assert encoder.clips() == Counter(range(30))
    again = probe(encoder, folded, config, device="cpu")
    assert encoder.clips() == Counter(range(16))
    assert [record.metrics for record in again] == [record.metrics for record in first]
    probe(encoder, folded, replace(config, heads=("protobin", "ep"), seeds=(7,)), device="cpu")
    assert encoder.clips() == Counter(range(16))
    in_memory = probe(encoder, folded, replace(config, cache_dir=None), device="cpu")
    assert [record.metrics for record in in_memory] == [record.metrics for record in first]


def test_folds_cost_one_pass_where_memory_is_too_small(folded, tmp_path, capsys):
    """Features go to the disk; heads that look at means alone need no such room."""
    config = replace(EVERYTHING, cache_gb=1e-5, heads=("cgp", "linear"), seeds=(0, 1), layers=False)
    encoder = Counting()
    records = probe(encoder, folded, config, out=tmp_path / "all", device="cpu")
    assert encoder.clips() == Counter(range(30))
    assert list((tmp_path / "all" / "features").glob("*/features.f32"))
    in_memory = probe(encoder, folded, replace(config, cache_gb=8.0), device="cpu")
    assert [record.metrics for record in records] == [record.metrics for record in in_memory]
    probe(encoder, folded, replace(config, heads=("linear",)), out=tmp_path / "linear", device="cpu")
    assert not (tmp_path / "linear" / "features").exists()


@pytest.mark.parametrize("count", [1, len(JOBS)])
def test_where_features_are_not_kept_heads_share_each_epochs_pass(table, count: int):
    """Ten batches of six are three epochs of 20 clips: every clip is encoded three times, for one head or for all."""
    encoder = Counting()
    source = cache_features(encoder, table, cache_gb=0, progress=False)
    assert source.freq_patches == 2  # one clip tells it, once
    encoder.clips()
    task = Task.of_matrix(torch.from_numpy(table.targets()), False)
    jobs = [replace(job, train=replace(job.train, steps=10)) for job in JOBS[:count]]
    train, test = np.arange(20), np.arange(20, 30)
    trainers, _ = train_heads(source, train, task, jobs)
    remembered = Counter(range(20)) if count > 1 else Counter()  # by knn, in a pass of its own
    assert encoder.clips() == Counter(list(range(20)) * 3) + remembered
    evaluate_heads(trainers, source, table, Split(train, test), task)
    assert encoder.clips() == Counter(range(30))  # test clips, and those that choose the threshold of F1
