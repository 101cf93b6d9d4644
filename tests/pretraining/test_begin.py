"""`--init`: what of a source comes along, what is refused, and that nothing is written where it is."""

import dataclasses
import re
import shutil
import types
from pathlib import Path

import pytest
import torch

from audiobat.config import (
    DataConfig,
    DecoderConfig,
    EncoderConfig,
    FrontendConfig,
    MaskConfig,
    OptimConfig,
    PretrainConfig,
    TargetConfig,
    TrainConfig,
)
from audiobat.data.scenes import demo_folder
from audiobat.engine.checkpoint import load_checkpoint
from audiobat.errors import AudiobatError
from audiobat.pretraining.begin import begin
from audiobat.pretraining.objectives.base import build_objective
from audiobat.pretraining.objectives.masked_latent_regression import MaskedLatentRegression
from audiobat.pretraining.run import pretrain
from audiobat.zoo import release as release_io

STEM = "modality_encoders.IMAGE."


def small(**parts) -> PretrainConfig:
    """A network of 2 blocks on the demo's recordings; `parts` are fields of groups, or whole values."""
    config = PretrainConfig(
        encoder=EncoderConfig(dim=16, depth=2, heads=2, max_frames=64),
        decoder=DecoderConfig(depth=1, heads=2),
        mask=MaskConfig(clones=2, block_size=2),
        target=TargetConfig(ema_start=0.5, ema_end=0.5),
        optim=OptimConfig(warmup_steps=0, lr=1e-2),
        data=DataConfig(path=str(demo_folder()), clip_seconds=0.6, workers=0),
        train=TrainConfig(steps=2, batch_size=2, log_every=1, precision="fp32", device="cpu"),
    )
    groups = {name: value for name, value in parts.items() if isinstance(value, dict)}
    config = dataclasses.replace(config, **{name: value for name, value in parts.items() if name not in groups})
    changed = {name: dataclasses.replace(getattr(config, name), **fields) for name, fields in groups.items()}
    return dataclasses.replace(config, **changed)


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> Path:
    """A run of two steps."""
    return pretrain(small(), tmp_path_factory.mktemp("first") / "run")


def begun(config: PretrainConfig):
    torch.manual_seed(9)
    objective = build_objective(config)
    return objective, begin(objective, config)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"frontend": {"kind": "kaldi_fbank"}}, "frontend.kind is mel_db there and kaldi_fbank here"),
        (
            {"frontend": {"sample_rate": 32_000, "hop_length": 320}},
            "frontend.sample_rate is 16000 there and 32000 here",
        ),
        ({"frontend": {"f_min": 100.0}}, "frontend.f_min is 0.0 there and 100.0 here"),
        ({"frontend": {"norm": "global"}}, "frontend.norm is minmax there and global here"),
        ({"encoder": {"heads": 4}}, "encoder.heads is 2 there and 4 here"),
        ({"encoder": {"patch_size": (32, 8)}}, r"encoder.patch_size is \[16, 16\] there and \[32, 8\] here"),
        ({"encoder": {"block_norm": "pre"}}, "encoder.block_norm is post there and pre here"),
        ({"encoder": {"gated_attention": False}}, "encoder.gated_attention is True there and False here"),
        ({"encoder": {"depth": 3}}, "encoder.depth is 2 there and 3 here"),
    ],
)
def test_weights_that_would_mean_something_else_are_refused_and_nothing_is_written(first, tmp_path, fields, said):
    with pytest.raises(AudiobatError, match=f"init .* was trained with other settings.*{said}"):
        pretrain(small(init=str(first), **fields), tmp_path / "second")
    assert not (tmp_path / "second").exists()


def test_all_differences_are_named_at_once(first, tmp_path):
    config = small(init=str(first), encoder={"heads": 4, "gate_bias": False}, frontend={"top_db": 60.0})
    with pytest.raises(AudiobatError, match=r"top_db is 80.0 .*; encoder.heads is 2 .*; encoder.gate_bias is True"):
        pretrain(config, tmp_path / "second")


def test_a_source_that_is_not_there_leaves_no_run(tmp_path):
    with pytest.raises(AudiobatError, match="No such folder or name"):
        pretrain(small(init=str(tmp_path / "none")), tmp_path / "second")
    assert not (tmp_path / "second").exists()


def test_of_a_run_all_parts_come_along_and_the_optimizer_goes_on(first, tmp_path):
    config = small(init=str(first), train={"steps": 1})
    objective, beginning = begun(config)
    checkpoint = load_checkpoint(first)
    state = objective.state_dict()
    assert state.keys() == checkpoint.model.keys()
    assert all(torch.equal(state[name], value) for name, value in checkpoint.model.items())
    assert not torch.equal(state["student.cls_token"], state["teacher.encoder.cls_token"])
    assert beginning.sentence.endswith("encoder, decoder, teacher, optimizer. New: nothing.")
    run = pretrain(config, tmp_path / "second")
    moments = load_checkpoint(run).optimizer["state"]
    assert {float(m["step"]) for m in moments.values()} == {3.0}  # two of the first run, one of its own
    assert beginning.sentence in (run / "log.txt").read_text()


def test_the_state_of_the_optimizer_may_be_new(first, tmp_path):
    run = pretrain(small(init=str(first), init_optimizer="new", train={"steps": 1}), tmp_path / "second")
    assert {float(m["step"]) for m in load_checkpoint(run).optimizer["state"].values()} == {1.0}
    assert "teacher. New: optimizer (as init_optimizer says)." in (run / "log.txt").read_text()


def test_another_grouping_of_parameters_begins_with_new_moments(first, tmp_path):
    run = pretrain(small(init=str(first), optim={"decay_1d": False}, train={"steps": 1}), tmp_path / "second")
    assert "New: optimizer (optim.decay_1d is True there and False here)." in (run / "log.txt").read_text()


def test_another_length_is_taken_and_positions_are_made_anew(first, tmp_path):
    config = small(init=str(first), encoder={"max_frames": 128, "drop_path": 0.1}, data={"clip_seconds": 1.2})
    objective, beginning = begun(config)
    torch.manual_seed(9)
    fresh = build_objective(config).state_dict()
    theirs = load_checkpoint(first).model
    for name, value in objective.state_dict().items():
        anew = name.endswith("pos_embed")
        assert torch.equal(value, (fresh if anew else theirs)[name]), name
        assert (value.shape != theirs[name].shape) == anew
    assert beginning.sentence.endswith("optimizer. New: nothing.")
    run = pretrain(dataclasses.replace(config, train=dataclasses.replace(config.train, steps=1)), tmp_path / "second")
    steps = [float(m["step"]) for m in load_checkpoint(run).optimizer["state"].values()]
    assert sorted(steps) == [1.0] + [3.0] * (len(steps) - 1)  # the decoder's table of positions has no moments to take


@pytest.mark.parametrize(
    ("decoder", "why"),
    [
        ({"heads": 4}, "decoder.heads is 2 there and 4 here"),
        ({"depth": 2}, "decoder.depth is 1 there and 2 here"),
        ({"kind": "cnn", "groups": 4}, "decoder.kind is vit there and cnn here"),
    ],
)
def test_another_decoder_is_new_and_so_is_the_optimizer(first, decoder, why):
    objective, beginning = begun(small(init=str(first), decoder=decoder))
    assert re.search(
        rf"encoder, teacher\. New: decoder \(.*{why}\), optimizer \(of other parts\)\.", beginning.sentence
    )
    torch.manual_seed(9)
    fresh = build_objective(small(decoder=decoder)).decoder.state_dict()
    assert all(torch.equal(value, fresh[name]) for name, value in objective.decoder.state_dict().items())


def test_of_a_release_teacher_and_student_are_one(first, tmp_path):
    encoder, _ = release_io.encoder_of_run(release_io.Place(first))
    release_io.save_release(tmp_path / "release", encoder)
    objective, beginning = begun(small(init=str(tmp_path / "release")))
    for name, value in encoder.state_dict().items():
        assert torch.equal(objective.student.state_dict()[name], value)
        assert torch.equal(objective.teacher.encoder.state_dict()[name], value)
    new = "decoder (not in the source), teacher (a copy of the encoder), optimizer (not in the source)"
    assert beginning.sentence.endswith(f"release: encoder. New: {new}.")


def test_a_run_goes_on_without_its_source(first, tmp_path):
    shutil.copytree(first, tmp_path / "first")
    config = small(init=str(tmp_path / "first"), train={"save_every": 1})
    run = pretrain(config, tmp_path / "second")
    shutil.rmtree(run / "checkpoints" / "step_000002")
    shutil.rmtree(tmp_path / "first")
    assert load_checkpoint(pretrain(config, run)).step == 2


# -- EAT's files --


def eat(**parts) -> PretrainConfig:
    fields = {
        "frontend": FrontendConfig(kind="kaldi_fbank", statistics="audioset_mae"),
        "encoder": EncoderConfig(dim=64, depth=2, heads=1, gated_attention=False, pad="grid", init="eat"),
        "decoder": DecoderConfig(kind="cnn", depth=2),
        "target": TargetConfig(source="mlp", norm_eps=1e-5),
        "data": DataConfig(path=str(demo_folder()), clip_seconds=10.24, workers=0),
    }
    return small(**(fields | parts))


def fairseq_file(path: Path, objective: MaskedLatentRegression) -> Path:
    """Student, decoder and teacher as fairseq writes a pre-training of EAT's: every tensor under EAT's name."""

    def of_encoder(encoder) -> dict:
        names = {"cls_token": "extra_tokens", "pos_embed": "fixed_positional_encoder.positions"}
        names |= {f"patch_embed.proj.{kind}": f"local_encoder.proj.{kind}" for kind in ("weight", "bias")}
        names |= {f"pre_norm.{kind}": f"context_encoder.norm.{kind}" for kind in ("weight", "bias")}
        state = {name: value for name, value in encoder.state_dict().items() if not name.startswith("frontend.")}
        return {STEM + names[name] if name in names else name: value.clone() for name, value in state.items()}

    model = of_encoder(objective.student)
    for n, conv in enumerate(objective.decoder.convs):
        model |= {f"{STEM}decoder.blocks.{n}.0.{kind}": getattr(conv, kind).detach() for kind in ("weight", "bias")}
    model |= {
        f"{STEM}decoder.proj.{kind}": getattr(objective.decoder.proj, kind).detach() for kind in ("weight", "bias")
    }
    model["_ema"] = of_encoder(objective.teacher.encoder)
    optimizer = {"state": {0: {"step": 7, "exp_avg": torch.zeros(3)}}}
    torch.save({"args": None, "cfg": {}, "model": model, "last_optimizer_state": optimizer}, path)
    return path


@pytest.fixture(scope="module")
def eats() -> MaskedLatentRegression:
    """A first stage whose teacher is another than its student."""
    torch.manual_seed(4)
    objective = build_objective(eat())
    with torch.no_grad():
        for parameter in objective.teacher.encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return objective


def test_of_a_whole_file_of_eats_decoder_and_teacher_come_along(eats, tmp_path):
    path = fairseq_file(tmp_path / "eat.pt", eats)
    objective, beginning = begun(eat(init=str(path)))
    wanted = eats.state_dict()
    for name, value in objective.state_dict().items():
        torch.testing.assert_close(value, wanted[name], rtol=0, atol=1e-6)
    assert beginning.sentence.endswith("encoder, decoder, teacher. New: optimizer (not in the source).")
    torch.manual_seed(0)
    batch = types.SimpleNamespace(waveform=0.1 * torch.randn(2, 163_839), lengths=None)
    losses = []
    for model in (eats, objective):
        torch.manual_seed(3)  # of the decoder's filler
        losses.append(model(batch, 0)[0].item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)


def test_the_teacher_of_a_file_may_be_both(eats, tmp_path):
    path = fairseq_file(tmp_path / "eat.pt", eats)
    objective, beginning = begun(eat(init=f"{path}:teacher"))
    for name, value in eats.teacher.encoder.named_parameters():
        assert torch.equal(objective.student.state_dict()[name], value)
        assert torch.equal(objective.teacher.encoder.state_dict()[name], value)
    assert "decoder" in beginning.sentence.split("New")[1]


def test_a_file_of_eats_does_not_fit_bat(eats, tmp_path):
    path = fairseq_file(tmp_path / "eat.pt", eats)
    wanted = r"frontend.kind is kaldi_fbank there and mel_db here; .*gated_attention is False there and True here"
    with pytest.raises(AudiobatError, match=wanted):
        begun(eat(init=str(path), frontend=FrontendConfig(), encoder=EncoderConfig(dim=64, depth=2, heads=1)))


def test_positions_of_a_files_own_are_for_one_length(eats, tmp_path):
    torch.manual_seed(4)
    other = build_objective(eat())
    other.student.pos_embed.copy_(other.student.pos_embed.flip(1))
    path = fairseq_file(tmp_path / "eat.pt", other)
    shorter = eat(encoder=dataclasses.replace(eat().encoder, max_frames=512), data=DataConfig(clip_seconds=5.0))
    with pytest.warns(UserWarning, match="not EAT's sines"), pytest.raises(AudiobatError, match="positions of its own"):
        begun(dataclasses.replace(shorter, init=str(path)))
    with pytest.warns(UserWarning, match="not EAT's sines"):
        objective, _ = begun(eat(init=str(path)))
    assert torch.equal(objective.student.pos_embed, other.student.pos_embed)
