"""A step of fine-tuning: its loss, which parameters it moves, which weights are kept."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from audiobat.config import (
    AugmentConfig,
    EncoderConfig,
    FinetuneConfig,
    FrontendConfig,
    MixupConfig,
    ModelConfig,
    SpecAugmentConfig,
    TaggerConfig,
    from_dict,
    to_dict,
)
from audiobat.config.recipes import merge
from audiobat.data.build import clip_table
from audiobat.data.loader import CropBatch
from audiobat.errors import AudiobatError
from audiobat.evaluation.labels import task_for
from audiobat.finetuning.layer_rates import build_adamw
from audiobat.finetuning.run import check_parts
from audiobat.finetuning.step import Finetuning, ema_decay_at
from audiobat.models.encoder import AudioEncoder
from audiobat.models.layers import recompute_blocks
from audiobat.models.tagger import Tagger

MODEL = ModelConfig(
    FrontendConfig(n_fft=256, win_length=256, mel_bins=16, f_max=6000.0),
    EncoderConfig(dim=16, depth=2, heads=2, patch_size=(16, 8), max_frames=64),
)
CLASSES = ("ant", "bee", "cicada")
EVENTS = [[("bee", 0.1, 0.4)], [("ant", 0.0, 0.2), ("cicada", 0.3, 0.45)], [("cicada", 0.0, 0.5)]]
PLAIN = FinetuneConfig(augment=AugmentConfig())


def changed(config: FinetuneConfig = PLAIN, **fields) -> FinetuneConfig:
    return from_dict(FinetuneConfig, merge(to_dict(config), fields))


def table():
    return clip_table("", [f"{i}.wav" for i in range(3)], events=EVENTS, classes=CLASSES)


def batch(lengths=(8000, 8000, 4100), starts=(0.0, 0.0, 0.0)) -> CropBatch:
    waveform = torch.randn(3, 8000, generator=torch.Generator().manual_seed(1))
    for row, length in zip(waveform, lengths, strict=True):
        row[length:] = 0
    own = None if set(lengths) == {8000} else torch.tensor(lengths)
    return CropBatch(waveform, own, np.arange(3), np.array(starts), ["0.wav", "1.wav", "2.wav"], 0, {})


def build(config: FinetuneConfig = PLAIN, task="clip", loss="bce", validate=None, **encoder) -> Finetuning:
    torch.manual_seed(0)
    network = AudioEncoder(replace(MODEL, encoder=replace(MODEL.encoder, **encoder)))
    tagger = Tagger(network, TaggerConfig(config.head, CLASSES, task))
    model = Finetuning(tagger, task_for(changed(task=task), table()), loss, config, validate=validate)
    model.freeze(False)
    return model.train()


def learn(model: Finetuning, optimizer, step: int) -> float:
    torch.manual_seed(step)
    loss, _ = model(batch(), step)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    model.after_step(step)
    return loss.item()


def test_without_augmentation_the_loss_is_that_of_the_taggers_answers():
    config = changed(train={"drop_path": 0.0, "label_smoothing": 0.1})
    model = build(config)
    logits = model.tagger(batch().waveform, batch().lengths)
    wanted = torch.tensor([[0.0, 1, 0], [1, 0, 1], [0, 0, 1]]) * 0.9 + 0.1 / 3
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, wanted)
    assert model(batch(), 0)[0].item() == pytest.approx(expected.item(), rel=1e-6)


def test_what_a_head_adds_to_the_loss_is_added():
    config = changed(head={"kind": "head2toe", "penalty": 0.5}, train={"drop_path": 0.0})
    model = build(config)
    logits = model.tagger(batch().waveform, batch().lengths)
    wanted = torch.tensor([[0.0, 1, 0], [1, 0, 1], [0, 0, 1]])
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, wanted)
    expected += 0.5 * 3**0.5 * model.tagger.head.classifier.weight.norm(dim=0).sum()
    assert model(batch(), 0)[0].item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_loss_of_frames_is_that_of_the_columns_that_hold_sound():
    model = build(changed(train={"drop_path": 0.0}), task="frame")
    logits, times = model.tagger.frames(batch().waveform, batch().lengths)  # columns start at 0, 0.16, 0.32, 0.48 s
    assert times.tolist() == pytest.approx([0.0, 0.16, 0.32, 0.48])
    wanted = torch.zeros(3, 4, 3)
    wanted[0, 1:3, 1] = 1  # bee, 0.1 to 0.4 s
    wanted[1, 0:2, 0] = 1  # ant, 0 to 0.2 s
    wanted[1, 2, 2] = 1  # cicada, 0.3 to 0.45 s
    wanted[2, 0:4, 2] = 1  # cicada, throughout; but its clip ends at 0.26 s, in the second column
    cells = [(0, t) for t in range(4)] + [(1, t) for t in range(4)] + [(2, 0), (2, 1)]
    terms = [torch.nn.functional.binary_cross_entropy_with_logits(logits[b, t], wanted[b, t]) for b, t in cells]
    assert model(batch(), 0)[0].item() == pytest.approx(torch.stack(terms).mean().item(), rel=1e-6)


def test_labels_of_frames_move_with_the_start_of_a_crop():
    task = task_for(changed(task="frame"), table())
    found = task.targets(np.array([0, 1]), torch.tensor([0.0, 0.1, 0.2, 0.3]), np.array([0.0, 0.25]))
    assert found[0, :, 1].tolist() == [0, 1, 1, 1]  # bee from 0.1 to 0.4 s of the clip
    assert found[1, :, 2].tolist() == [0, 1, 0, 0]  # cicada from 0.05 to 0.2 s of the crop
    assert found[1, :, 0].tolist() == [0, 0, 0, 0]  # ant was over before the crop begins


def test_a_step_is_a_function_of_its_number():
    config = changed(PLAIN, augment=to_dict(AugmentConfig(mixup=MixupConfig(1.0), spec_augment=SpecAugmentConfig(0.5))))
    model = build(changed(config, train={"drop_path": 0.0}))
    losses = [model(batch(), step)[0].item() for step in (3, 3, 4)]
    assert losses[0] == losses[1] != losses[2]


def test_eats_loss_is_divided_by_the_labels_of_the_batch():
    model = build(changed(train={"drop_path": 0.0, "bce_per": "label"}))
    logits = model.tagger(batch().waveform, batch().lengths)
    wanted = torch.tensor([[0.0, 1, 0], [1, 0, 1], [0, 0, 1]])
    total = torch.nn.functional.binary_cross_entropy_with_logits(logits, wanted, reduction="sum")
    assert model(batch(), 0)[0].item() == pytest.approx(total.item() / 4, rel=1e-6)


def seen_by(model: Finetuning, monkeypatch) -> torch.Tensor:
    """The augmented spectrograms that the encoder of a fine-tuning is given in a step."""
    seen = []
    encoder = model.tagger.encoder
    really = encoder.forward_spectrogram
    monkeypatch.setattr(encoder, "forward_spectrogram", lambda x, *rest: (seen.append(x), really(x, *rest))[1])
    model(batch(), 0)
    return seen[0]


@pytest.mark.parametrize("pad", ["mask", "grid"])
def test_stripes_lie_in_the_window_of_models_that_attend_to_padding(pad: str, monkeypatch):
    """A clip of 0.26 s has 26 frames of a window of 64."""
    stripes = SpecAugmentConfig(1.0, 0.0, "window", time_masks=3, fill=-7.0)
    config = changed(augment=to_dict(AugmentConfig(spec_augment=stripes)))
    model = build(config, pad=pad)
    blank = torch.zeros(64, dtype=torch.bool)
    for seed in range(40):
        model.config = changed(config, train={"seed": seed})
        found = (seen_by(model, monkeypatch)[2] == -7.0).all(1)
        blank[: len(found)] |= found
    assert blank[:26].all()
    assert bool(blank[26:].any()) == (pad == "grid")
    assert len(found) == {"mask": 51, "grid": 64}[pad]


def test_a_share_of_the_window_is_one_of_the_models_window():
    """A batch of clips of 51 frames, in a model with windows of 64: half of them is 32."""
    config = changed(augment=to_dict(AugmentConfig(spec_augment=SpecAugmentConfig(0.5, 0.0, "window", fill=-7.0))))
    model, widths = build(config), set()
    for seed in range(60):
        model.config = changed(config, train={"seed": seed})
        with pytest.MonkeyPatch.context() as patch:
            found = seen_by(model, patch)[:2] == -7.0
        widths |= set(found.all(2).sum(1).tolist())
    assert max(widths) == 32


def test_padding_of_a_window_changes_no_loss_of_a_model_that_attends_to_it():
    model = build(changed(train={"drop_path": 0.0}), pad="grid")
    logits = model.tagger(batch().waveform, batch().lengths)
    wanted = torch.tensor([[0.0, 1, 0], [1, 0, 1], [0, 0, 1]])
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, wanted)
    assert model(batch(), 0)[0].item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("lengths", [(8000, 8000, 8000), (8000, 8000, 4100)])
def test_columns_of_padding_have_no_share_in_the_loss_of_frames(lengths: tuple):
    model = build(changed(train={"drop_path": 0.0}), task="frame", pad="grid", max_frames=96)
    given = batch(lengths)
    logits, times = model.tagger.frames(given.waveform, given.lengths)
    wanted = model.task.targets(given.clip_ids, times).float()
    own = [4, 4, 4 if lengths[2] == 8000 else 2]  # of six columns
    rows = [(clip, column) for clip, count in enumerate(own) for column in range(count)]
    cells = [torch.nn.functional.binary_cross_entropy_with_logits(logits[at], wanted[at]) for at in rows]
    assert model(given, 0)[0].item() == pytest.approx(torch.stack(cells).mean().item(), rel=1e-6)


@pytest.mark.parametrize("task", ["clip", "frame"])
@pytest.mark.parametrize(
    ("lengths", "columns", "masked"),
    [((8000, 8000, 8000), 4, False), ((4100, 4000, 5000), 2, False), ((4100, 2000, 5000), 2, True)],
)
def test_the_encoder_gets_what_clips_reach(task: str, lengths: tuple, columns: int, masked: bool, monkeypatch):
    """And nothing else differs from a batch of full crops of which the padding is hidden."""
    augment = {"mixup": {"probability": 1.0}, "cell_noise": 0.3, "noise": {"probability": 1.0}}
    model = build(changed(augment=augment, train={"drop_path": 0.0}), task)
    given, seen = batch(lengths), []
    for name, note in (
        ("embed_patches", lambda x: x.shape[1] // 16),
        ("run_blocks", lambda x, valid: valid is not None),
    ):
        monkeypatch.setattr(AudioEncoder, name, noting(getattr(AudioEncoder, name), seen, note))
    loss, _ = model(given, 1)
    assert seen == [columns, masked]
    monkeypatch.setattr(AudioEncoder, "end_together", lambda *_: False)
    monkeypatch.setattr(AudioEncoder, "frame_counts", lambda *_: torch.tensor(64))
    plain, _ = model(given, 1)
    assert seen[2:] == [4, lengths != (8000, 8000, 8000)]
    torch.testing.assert_close(loss, plain)


def noting(method, notes, note):
    """`method`, which first adds to `notes` what `note` makes of its arguments."""

    def call(self, *args):
        notes.append(note(*args))
        return method(self, *args)

    return call


def test_drop_path_grows_with_depth_and_leaves_the_config_alone():
    model = build(changed(train={"drop_path": 0.2}))
    assert [block.drop_path.rate for block in model.tagger.encoder.blocks] == pytest.approx([0.0, 0.2])
    assert model.tagger.encoder.config == MODEL


def test_the_moving_average_follows_its_formula():
    model = build(changed(train={"ema_decay": 0.9}, optim={"lr": 1e-2}))
    optimizer = build_adamw(model.tagger, model.config.optim)
    expected = {name: p.detach().clone() for name, p in model.tagger.named_parameters()}
    for step, decay in enumerate((1 / 10, 2 / 11, 3 / 12)):  # 0.9 comes with step 80
        learn(model, optimizer, step)
        for name, parameter in model.tagger.named_parameters():
            expected[name] = decay * expected[name] + (1 - decay) * parameter.detach()
    assert model.last is model.ema
    for name, parameter in model.ema.named_parameters():
        torch.testing.assert_close(parameter, expected[name], msg=name)
        assert not parameter.requires_grad
    assert not torch.equal(model.ema.head.classifier.weight, model.tagger.head.classifier.weight)


@pytest.mark.parametrize("decay", [0.9, 0.99, 0.9999])
def test_a_short_run_forgets_the_untrained_head(decay: float):
    decays = [ema_decay_at(step, decay) for step in range(100)]
    assert np.prod(decays) < 1e-4
    assert decays == sorted(decays)
    assert ema_decay_at(10**6, decay) == decay


def test_the_average_copies_what_is_not_learnt():
    config = changed(head={"norm": "batch"}, train={"ema_decay": 0.9})
    model = build(config)
    learn(model, build_adamw(model.tagger, config.optim), 0)
    assert torch.equal(model.ema.head.norm.running_mean, model.tagger.head.norm.running_mean)
    assert model.tagger.head.norm.running_mean.abs().sum() > 0


def test_a_frozen_encoder_neither_moves_nor_drops_paths():
    config = changed(optim={"lr": 1e-2}, train={"drop_path": 0.9})
    model = build(config)
    optimizer = build_adamw(model.tagger, config.optim)
    before = {name: p.detach().clone() for name, p in model.tagger.named_parameters()}
    model.freeze(True)
    model.train()
    assert not model.tagger.encoder.training
    assert model.tagger.head.training
    for step in range(2):
        learn(model, optimizer, step)
    for name, parameter in model.tagger.named_parameters():
        assert torch.equal(parameter, before[name]) == name.startswith("encoder."), name
    model.freeze(False)
    model.train()
    learn(model, optimizer, 2)
    assert not torch.equal(model.tagger.encoder.patch_embed.proj.weight, before["encoder.patch_embed.proj.weight"])


@pytest.mark.parametrize("ema", [None, 0.5])
def test_the_best_weights_are_those_of_the_first_highest_score(ema):
    config = changed(train={"steps": 7, "ema_decay": ema}, select={"every": 2}, optim={"lr": 1e-2, "warmup_steps": 0})
    scores = iter([0.2, 0.7, 0.7, 0.1])
    validated = []

    def validate(tagger: Tagger, step: int) -> float:
        assert not tagger.training
        validated.append((step, tagger.head.classifier.weight.detach().clone()))
        return next(scores)

    model = build(config, validate=validate)
    optimizer = build_adamw(model.tagger, config.optim)
    for step in range(7):
        learn(model, optimizer, step)
        assert model.training
    assert [step for step, _ in validated] == [2, 4, 6, 7]
    best, last = model.kept("best"), model.kept("last")
    assert (best.step, best.validation) == (4, 0.7)
    assert torch.equal(best.tagger.head.classifier.weight, validated[1][1])
    assert (last.step, last.validation) == (7, None)
    assert torch.equal(last.tagger.head.classifier.weight, validated[3][1])
    assert last.tagger is (model.tagger if ema is None else model.ema)


@pytest.mark.parametrize(
    "head",
    [
        {"kind": "cgp", "prototypes": 4},
        {"kind": "protobin", "prototypes": 4},
        {"kind": "linear_cgp"},
        {"kind": "attentive"},
        {"kind": "ep", "queries": 4},
        {"kind": "head2toe"},
        {"kind": "proto_classwise", "per_class": 2},
        {"kind": "mean_time_keep_freq"},
        {"kind": "linear", "layer": 1},
    ],
    ids=lambda head: head["kind"],
)
@pytest.mark.parametrize("task", ["clip", "frame"])
def test_every_head_teaches_all_that_it_reads(head: dict, task: str):
    config = from_dict(FinetuneConfig, {"head": head, "augment": {}, "train": {"drop_path": 0.0}})
    model = build(config, task=task)
    loss, _ = model(batch(), 0)
    loss.backward()
    assert loss.item() > 0
    silent = {name for name, p in model.tagger.named_parameters() if p.requires_grad and p.grad is None}
    assert silent == set()
    assert any(p.grad.abs().sum() > 0 for p in model.tagger.encoder.patch_embed.parameters())
    assert head.items() <= vars(model.tagger.config.head).items()


WITH_DRAWS = {
    "head": {"kind": "linear", "norm": "scaled_layer", "dropout": 0.3},
    "augment": {"mixup": {"probability": 1.0}, "spec_augment": {"time_width": 0.2, "frequency_width": 0.2}},
    "train": {"drop_path": 0.4, "label_smoothing": 0.1},
}


@pytest.mark.parametrize("frozen", [False, True], ids=["all", "head"])
@pytest.mark.parametrize("lengths", [(8000, 8000, 8000), (8000, 5000, 4100)], ids=["full", "padded"])
@pytest.mark.parametrize(
    ("task", "loss", "per"), [("clip", "bce", "label"), ("clip", "ce", "cell"), ("frame", "asl", "cell")]
)
def test_parts_of_a_batch_have_the_loss_and_gradient_of_the_whole(task, loss, per, lengths, frozen):
    def step(accumulate, recompute=False, **encoder):
        config = changed(**merge(WITH_DRAWS, {"train": {"accumulate": accumulate, "bce_per": per}}))
        model = build(config, task, loss, **encoder)
        recompute_blocks(model, recompute)
        model.freeze(frozen)
        model.train()
        torch.manual_seed(5)
        total, _ = model(batch(lengths), 3)
        (2 * total).backward()
        grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        assert len(grads) == (4 if frozen else len([p for p in model.tagger.parameters() if p.requires_grad]))
        return {"loss": total.detach(), **grads}

    whole = step(None)
    for accumulate in (2, 3, 100):
        torch.testing.assert_close(step(accumulate), whole, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(step(2, recompute=True), step(2), rtol=0, atol=0)
    windows = {"max_frames": 16}  # a clip of 8,000 samples runs in several windows
    torch.testing.assert_close(step(3, **windows), step(None, **windows), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("head", [{"kind": "linear", "norm": "batch"}, {"kind": "ep", "queries": 4}])
def test_a_batch_norm_refuses_parts_of_a_batch(head):
    config = changed(head=head, train={"accumulate": 2})
    with pytest.raises(AudiobatError, match=rf"train.accumulate is 2.*{head['kind']} needs the whole batch"):
        check_parts(build(config).tagger, config)
    check_parts(build(changed(head=head)).tagger, changed(head=head))


def test_compiling_is_refused():
    with pytest.raises(AudiobatError, match=r"train\.compile is 'on'"):
        changed(train={"compile": "on"})
