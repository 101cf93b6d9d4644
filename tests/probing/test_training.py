"""Many heads on one pass: each becomes what it would be alone, whoever trains beside; each batch is encoded once."""

from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from sklearn.metrics import average_precision_score
from torch import nn

from audiobat.config import EncoderConfig, FrontendConfig, HeadConfig, ModelConfig, ProbeConfig, ProbeTrainConfig
from audiobat.data.build import clip_table
from audiobat.data.clip_table import ClipTable
from audiobat.errors import AudiobatError
from audiobat.evaluation.labels import Task, task_for
from audiobat.models.encoder import AudioEncoder
from audiobat.models.losses import probe_loss
from audiobat.probing import training
from audiobat.probing.cache import FeatureSource, cache_features
from audiobat.probing.jobs import HeadJob
from audiobat.probing.training import (
    PREDICT_BATCH,
    HeadTrainer,
    Validation,
    draw_clips,
    predict_heads,
    train_heads,
    validation_score,
)

RATE = 8000
FRONTEND = FrontendConfig(sample_rate=RATE, n_fft=256, win_length=256, hop_length=80, mel_bins=16)
MODEL = ModelConfig(FRONTEND, EncoderConfig(dim=16, depth=2, heads=2, patch_size=(16, 8), max_frames=96))
TONES = {"low": 250.0, "mid": 900.0, "top": 2800.0}
TRAIN = ProbeTrainConfig(steps=12, warmup_steps=2, batch_size=8, lr=1e-2)
ROWS = np.arange(24)


def job(kind: str, **settings) -> HeadJob:
    head = HeadConfig(kind, prototypes=settings.pop("prototypes", 16), dropout=settings.pop("dropout", 0.2))
    extra = {name: settings.pop(name) for name in list(settings) if name in vars(head)}
    return HeadJob(kind, replace(head, **extra), replace(TRAIN, **settings))


COMPANY = [
    job("cgp"),
    job("protobin", seed=1),
    job("linear", norm="batch", pool="mean", lr=3e-2),
    job("linear_cgp", weight_decay=0.3),
    job("attentive", steps=7),
    job("ep", queries=4, reduction=2),
    job("head2toe"),
    job("proto_classwise", per_class=3),
    job("knn", neighbours=3),
    job("mean_time_keep_freq"),
    job("cgp", prototypes=5, seed=3, steps=9),
    job("linear", layer=1, norm="layer"),
    job("vqt"),
]


@pytest.fixture(scope="module")
def encoder() -> AudioEncoder:
    torch.manual_seed(0)
    return AudioEncoder(MODEL).eval()


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> ClipTable:
    """36 clips of two or three tones, one after the other, with their times."""
    folder = tmp_path_factory.mktemp("tones")
    rng = np.random.default_rng(0)
    names, events = [], []
    for i in range(36):
        samples, heard = [], []
        for _ in range(rng.integers(2, 4)):
            name = str(rng.choice(list(TONES)))
            length = int(rng.uniform(0.16, 0.4) * RATE)
            onset = sum(map(len, samples)) / RATE
            samples.append(0.3 * np.sin(2 * np.pi * TONES[name] * np.arange(length) / RATE))
            heard.append((name, onset, onset + length / RATE))
        wave = np.concatenate(samples)
        soundfile.write(folder / f"{i:02d}.wav", wave + rng.normal(scale=0.01, size=len(wave)), RATE)
        names.append(f"{i:02d}.wav")
        events.append(heard)
    splits = ["train"] * 24 + ["test"] * 12
    return clip_table(folder, names, classes=list(TONES), events=events, splits=splits)


@pytest.fixture(scope="module", params=[8.0, 0.0], ids=["kept", "anew"])
def source(request, encoder: AudioEncoder, table: ClipTable) -> FeatureSource:
    return cache_features(encoder, table, cache_gb=request.param, progress=False)


@pytest.fixture(scope="module")
def kept(encoder: AudioEncoder, table: ClipTable) -> FeatureSource:
    return cache_features(encoder, table, progress=False)


def clip_task(table: ClipTable) -> Task:
    return Task.of_matrix(torch.from_numpy(table.targets()), table.single_label)


def states(trainers: list[HeadTrainer]) -> list[dict[str, torch.Tensor]]:
    return [trainer.head.state_dict() for trainer in trainers]


def test_a_head_becomes_in_company_what_it_becomes_alone(source, table):
    task = clip_task(table)
    together, _ = train_heads(source, ROWS, task, COMPANY)
    said = predict_heads(together, source, np.arange(24, 36), task)
    for i, one in enumerate(COMPANY):
        alone, _ = train_heads(source, ROWS, task, [one])
        for name, value in states(alone)[0].items():
            if source.cached:
                assert torch.equal(value, states(together)[i][name]), (one.name, name)
            torch.testing.assert_close(value, states(together)[i][name], rtol=0, atol=1e-5)
        own = predict_heads(alone, source, np.arange(24, 36), task)
        torch.testing.assert_close(own.logits[0], said.logits[i], rtol=0, atol=1e-5)
        assert torch.equal(own.labels, said.labels)


def test_frame_heads_become_in_company_what_they_become_alone(kept, table):
    task = task_for(ProbeConfig(task="frame"), table)
    together, _ = train_heads(kept, ROWS, task, COMPANY)
    for i, one in enumerate(COMPANY):
        alone, _ = train_heads(kept, ROWS, task, [one])
        for name, value in states(alone)[0].items():
            torch.testing.assert_close(value, states(together)[i][name], rtol=0, atol=1e-5)


def test_seeds_vary_weights_and_dropout_and_not_the_order(kept, table):
    first, second = (replace(TRAIN, seed=seed) for seed in (0, 1))
    draws = [draw_clips(ROWS, train, 9) for train in (first, second)]
    assert all(np.array_equal(a, b) for a, b in zip(*draws, strict=True))
    other = replace(TRAIN, order_seed=1)
    assert not all(
        np.array_equal(a, b) for a, b in zip(draw_clips(ROWS, first, 9), draw_clips(ROWS, other, 9), strict=True)
    )
    trainers, _ = train_heads(kept, ROWS, clip_task(table), [job("cgp"), job("cgp", seed=1)])
    assert not torch.equal(*(trainer.head.prototypes for trainer in trainers))


def test_dropout_is_of_a_heads_own_seed(kept, table):
    """Two heads of one seed that differ in nothing are one head; of other seeds, masks differ."""
    trainers, _ = train_heads(kept, ROWS, clip_task(table), [job("linear"), job("linear"), job("linear", seed=4)])
    weights = [trainer.head.classifier.weight for trainer in trainers]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_each_batch_is_encoded_once_for_all_heads(encoder, table, monkeypatch):
    source = cache_features(encoder, table, cache_gb=0, progress=False)
    seen = []
    forward = AudioEncoder.forward_intermediates
    monkeypatch.setattr(AudioEncoder, "forward_intermediates", lambda *a: (seen.append(len(a[1])), forward(*a))[1])
    heads = [job(kind) for kind in ("cgp", "protobin", "linear", "linear_cgp", "attentive")]
    trainers, _ = train_heads(source, ROWS, clip_task(table), heads)
    assert seen == [TRAIN.batch_size] * TRAIN.steps
    seen.clear()
    predict_heads(trainers, source, np.arange(24, 36), clip_task(table))
    assert seen == [12]
    assert PREDICT_BATCH >= 12


def test_heads_that_look_at_means_alone_make_nothing_else(encoder, table, monkeypatch):
    source = cache_features(encoder, table, cache_gb=0.01, progress=False)
    again = FeatureSource(encoder, table, source.indices, {}, None, source.device, 2, budget=1e7)
    seen = []
    forward = AudioEncoder.forward_intermediates
    monkeypatch.setattr(AudioEncoder, "forward_intermediates", lambda *a: (seen.append(len(a[1])), forward(*a))[1])
    train_heads(again, ROWS, clip_task(table), [job("linear"), job("head2toe"), job("knn")])
    assert sum(seen) == len(table)


def test_heads_of_fewer_steps_are_done_earlier(kept, table, monkeypatch):
    steps: dict[str, int] = {}
    learn = HeadTrainer.train_step

    def counting(self: HeadTrainer, *arguments) -> None:
        steps[self.job.name] = steps.get(self.job.name, 0) + 1
        learn(self, *arguments)

    monkeypatch.setattr(HeadTrainer, "train_step", counting)
    train_heads(kept, ROWS, clip_task(table), [job("cgp", steps=7), job("linear", steps=19), job("knn")])
    assert steps == {"cgp": 7, "linear": 19}


@pytest.mark.parametrize("field", ["batch_size", "order_seed"])
def test_heads_of_other_batches_have_a_pass_of_their_own(kept, table, field: str, monkeypatch):
    heads = [job("cgp"), job("linear", **{field: 9}), job("knn"), job("protobin"), job("linear_cgp", **{field: 9})]
    drawn = []
    draw = training.draw_clips
    monkeypatch.setattr(training, "draw_clips", lambda *a: (drawn.append(getattr(a[1], field)), draw(*a))[1])
    together, _ = train_heads(kept, ROWS, clip_task(table), heads)
    assert drawn == [getattr(TRAIN, field), 9]
    for one, state in zip(heads, states(together), strict=True):
        [alone], _ = train_heads(kept, ROWS, clip_task(table), [one])
        for name, value in alone.head.state_dict().items():
            torch.testing.assert_close(value, state[name], rtol=0, atol=1e-5)


def test_a_head_that_comes_apart_is_named_or_left_behind(kept, table):
    heads = [job("cgp"), replace(job("linear", lr=1e30), name="wild")]
    with pytest.raises(AudiobatError, match=r"The loss of head wild is (nan|inf) at step"):
        train_heads(kept, ROWS, clip_task(table), heads)
    trainers, _ = train_heads(kept, ROWS, clip_task(table), heads, tolerant=True)
    assert [trainer.diverged is None for trainer in trainers] == [True, False]
    alone, _ = train_heads(kept, ROWS, clip_task(table), heads[:1])
    torch.testing.assert_close(trainers[0].head.prototypes, alone[0].head.prototypes, rtol=0, atol=1e-5)


def test_a_heads_penalty_is_a_part_of_what_it_minimises(kept, table, monkeypatch):
    heavy, light = (job("head2toe", penalty=weight, lr=3e-3, steps=200, dropout=0.0) for weight in (1.0, 0.0))
    trainers, _ = train_heads(kept, ROWS, clip_task(table), [heavy, light])
    norms = [torch.linalg.vector_norm(trainer.head.classifier.weight) for trainer in trainers]
    assert norms[0] < norms[1] / 3


@pytest.mark.parametrize("unit", ["clip", "frame"])
def test_the_best_validation_step_is_kept(kept, table, unit: str, monkeypatch):
    """Every step's weights, scored here by scikit-learn on the validation clips, of which test clips are none."""
    task = clip_task(table) if unit == "clip" else task_for(ProbeConfig(task="frame"), table)
    blind = replace(kept, indices=np.arange(30))  # test clips have no features
    valid = np.arange(24, 30)
    heads = [job("cgp", lr=0.1, steps=20), job("linear", lr=0.3, steps=11), job("protobin", seed=2), job("knn")]
    states: dict[tuple[str, int], dict[str, torch.Tensor]] = {}
    learn = HeadTrainer.train_step

    def remembering(self: HeadTrainer, step: int, *rest) -> None:
        learn(self, step, *rest)
        states[self.job.name, step + 1] = {n: v.clone() for n, v in self.head.state_dict().items()}

    monkeypatch.setattr(HeadTrainer, "train_step", remembering)
    trainers, _ = train_heads(blind, ROWS, task, heads, validation=Validation(valid, every=3))
    monkeypatch.undo()
    steps = [trainer.best.step for trainer in trainers[:3]]
    assert any(step < trainer.steps for step, trainer in zip(steps, trainers, strict=False)), "else last is best"
    for trainer in trainers[:3]:
        scores = {}
        for done in range(1, trainer.steps + 1):
            if done % 3 == 0 or done == trainer.steps:
                trainer.head.load_state_dict(states[trainer.job.name, done])
                said = predict_heads([trainer], blind, valid, task)
                asked = said.labels.any(0) if unit == "clip" else slice(None)
                average = "macro" if unit == "clip" else "micro"
                scores[done] = average_precision_score(said.labels[:, asked], said.logits[0][:, asked], average=average)
        best = max(scores, key=lambda done: (scores[done], -done))
        assert (trainer.best.step, trainer.best.score) == (best, pytest.approx(scores[best], abs=1e-6))
        assert all(torch.equal(v, states[trainer.job.name, best][n]) for n, v in trainer.best.state.items())
    assert trainers[3].best is None, "nothing of it is trained"
    plain, _ = train_heads(blind, ROWS, task, heads[:3])
    for trainer in plain:
        end = states[trainer.job.name, trainer.steps]
        assert all(torch.equal(v, end[n]) for n, v in trainer.head.state_dict().items()), "to look changes nothing"
    [alone], _ = train_heads(blind, ROWS, task, heads[:1], validation=Validation(valid, every=3))
    assert alone.best.step == steps[0]
    assert torch.equal(alone.head.prototypes, alone.best.state["prototypes"]), "the head has the kept weights"


def test_one_label_a_clip_is_validated_by_accuracy():
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [1.0, 0.0, 0.5], [0.0, 0.2, 0.1]])
    labels = nn.functional.one_hot(torch.tensor([0, 1, 2, 2]), 3).bool()
    for loss in ("ce", "bce"):
        assert validation_score(logits, labels, loss, Task.of_matrix(labels, True)) == pytest.approx(0.5)


def test_nearest_neighbours_remember_exactly_the_training_clips(kept, table):
    trainers, _ = train_heads(kept, ROWS, clip_task(table), [job("knn", neighbours=1), job("cgp")])
    knn = trainers[0].head
    assert torch.equal(knn.targets, torch.from_numpy(table.targets()[:24]).float())
    said = predict_heads(trainers, kept, ROWS, clip_task(table))
    assert torch.equal(said.logits[0] > 0, said.labels)  # the nearest clip to a training clip is itself


def test_labels_of_frames_are_those_at_the_start_of_valid_columns(kept, table):
    task = task_for(ProbeConfig(task="frame"), table)
    rows = np.array([3, 30, 7])
    trainers, _ = train_heads(kept, ROWS, task, [job("cgp", dropout=0.0, steps=300, lr=3e-2)])
    said = predict_heads(trainers, kept, rows, task)
    expected, clips, times = [], [], []
    for row in rows.tolist():
        seconds = max(offset for _, _, offset in table.events.row(row).tolist())
        for column in range(-(-(int(seconds * RATE) // 80 + 1) // 16)):
            time = column * 16 * 80 / RATE
            there = [label for label, onset, offset in table.events.row(row).tolist() if onset <= time < offset]
            expected.append([c in there for c in range(3)])
            clips.append(row)
            times.append(time)
    assert said.labels.tolist() == expected
    assert said.clip_ids.tolist() == clips
    assert said.times.tolist() == pytest.approx(times)
    right = (said.logits[0] > 0) == said.labels
    assert right.float().mean() > 0.8  # a tone that is heard in a column is found there


def test_tuned_queries_leave_the_encoder_as_it_was(encoder, kept, table):
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    trainers, _ = train_heads(kept, ROWS, clip_task(table), [job("vqt", lr=3e-2, steps=60)])
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    said = predict_heads(trainers, kept, ROWS, clip_task(table))
    assert probe_loss("bce", said.logits[0], said.labels) < 0.5  # 0.69 is chance


def test_features_are_the_same_from_worker_processes(encoder, table):
    here, there = (cache_features(encoder, table, cache_gb=0, workers=n, progress=False) for n in (0, 2))
    draws = [ROWS[:5], ROWS[3:9], ROWS[20:]]
    for (rows, one), (same, two) in zip(here.batches(draws), there.batches(iter(draws)), strict=True):
        assert np.array_equal(rows, same)
        assert torch.equal(one.patch_tokens, two.patch_tokens)


def test_a_clip_that_goes_while_heads_train_is_named(encoder, tmp_path):
    for i in range(4):
        soundfile.write(tmp_path / f"{i}.wav", np.full(2000, 0.1 * i), RATE)
    table = clip_table(tmp_path, [f"{i}.wav" for i in range(4)], labels=[["a"], ["b"], ["a"], ["b"]])
    for workers in (0, 1):
        source = cache_features(encoder, table, cache_gb=0, workers=workers, progress=False)
        (tmp_path / "2.wav").rename(tmp_path / "away")
        with pytest.raises(AudiobatError, match=r"Clip 2\.wav could be read before and now cannot"):
            list(source.batches([np.array([1, 2])]))
        (tmp_path / "away").rename(tmp_path / "2.wav")


def test_losses_are_their_formulas():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(40, 5, generator=generator, dtype=torch.float64)
    labels = torch.rand(40, 5, generator=generator) < 0.3
    p, y = logits.sigmoid(), labels.double()
    positive, negative = -p.log(), -(1 - p).log()
    assert float(probe_loss("bce", logits, labels)) == pytest.approx(float((y * positive + (1 - y) * negative).mean()))
    asymmetric = (y * positive + (1 - y) * p * negative).mean()
    assert float(probe_loss("asl", logits, labels)) == pytest.approx(float(asymmetric))
    one = nn.functional.one_hot(torch.arange(40) % 5, 5).bool()
    picked = -logits.softmax(1)[one].log().mean()
    assert float(probe_loss("ce", logits, one)) == pytest.approx(float(picked))
    extreme = torch.tensor([[200.0, -200.0]], requires_grad=True)
    for kind in ("bce", "asl"):
        loss = probe_loss(kind, extreme, torch.tensor([[True, False]]))
        (gradient,) = torch.autograd.grad(loss, extreme)
        assert loss.item() < 1e-6
        assert gradient.isfinite().all()


def test_training_shows_what_it_does(kept, table, capsys):
    train_heads(kept, ROWS, clip_task(table), [job("cgp"), job("linear")], "fold 2 of 5, ")
    assert "fold 2 of 5, train 2 heads: 12/12 steps" in capsys.readouterr().err


def test_features_leave_the_random_state_and_gradients_alone(source):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    features = source.batch([2])
    _, more = next(source.batches([ROWS[:4]]))
    assert torch.equal(torch.rand(3), expected)
    assert not features.patch_tokens.requires_grad
    assert not more.patch_tokens.requires_grad
