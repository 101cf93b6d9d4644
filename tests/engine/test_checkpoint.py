"""Checkpoints: killed at any instant of a save, damaged in any byte, of another shape, and how many are kept."""

import os
import random
import shutil
from pathlib import Path

import pytest
import torch
from killing import Killed, killed_at
from torch import nn

from audiobat.engine.checkpoint import latest, load_checkpoint, read_checkpoint, restore, save_checkpoint
from audiobat.engine.optim import build_optimizer
from audiobat.errors import AudiobatError


def make(width: int = 3, value: float | None = None, decay_1d: bool = True, lr: float = 0.1):
    torch.manual_seed(0)
    net = nn.Linear(width, 2)
    if value is not None:
        nn.init.constant_(net.weight, value)
    optimizer = build_optimizer(net.named_parameters(), lr=lr, weight_decay=0.1, betas=(0.9, 0.95), decay_1d=decay_1d)
    net(torch.ones(1, width)).sum().backward()
    optimizer.step()
    return net, optimizer


def save(folder, step, keep=2):
    net, optimizer = make(value=float(step))
    return save_checkpoint(folder, step, net, optimizer, means={"loss": (1.5, 3)}, extra={"name": "nano"}, keep=keep)


def names(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def holds(checkpoint, step):
    return checkpoint.step == step and torch.equal(checkpoint.model["weight"], make(value=float(step))[0].weight)


def test_what_is_saved_comes_back(tmp_path):
    net, optimizer = make()
    save_checkpoint(tmp_path, 7, net, optimizer, means={"loss": (1.5, 3)}, extra={"name": "nano"})
    other, other_optimizer = make(value=9.0, lr=0.7)
    checkpoint = load_checkpoint(tmp_path)
    restore(checkpoint, other, other_optimizer)
    assert (checkpoint.step, checkpoint.means, checkpoint.extra) == (7, {"loss": (1.5, 3)}, {"name": "nano"})
    assert torch.equal(net.weight, other.weight)
    moments, other_moments = optimizer.state[net.weight], other_optimizer.state[other.weight]
    assert torch.equal(moments["exp_avg_sq"], other_moments["exp_avg_sq"])
    assert moments["step"] == other_moments["step"] == 1
    assert other_optimizer.param_groups[0]["lr"] == 0.7  # the options of the run that resumes win


def test_the_newest_are_kept_and_last_names_the_newest(tmp_path):
    for step in (5, 10, 15):
        save(tmp_path, step)
    assert names(tmp_path) == ["last", "step_000010", "step_000015"]
    assert (tmp_path / "checkpoints" / "last").read_text() == "step_000015\n"
    assert latest(tmp_path) == tmp_path / "checkpoints" / "step_000015"


def test_the_newest_is_chosen_by_number(tmp_path):
    save(tmp_path, 999_999)
    save(tmp_path, 1_000_000)
    assert load_checkpoint(tmp_path).step == 1_000_000


def test_a_run_without_checkpoints_has_none(tmp_path):
    assert latest(tmp_path) is None
    assert load_checkpoint(tmp_path) is None


def test_a_kill_at_any_instant_of_a_save_leaves_a_usable_checkpoint(tmp_path, monkeypatch):
    """Kill before and after every call that changes the disk, one run per instant."""
    touched = [(torch, "save"), (os, "fsync"), (Path, "mkdir"), (Path, "rename"), (Path, "replace"), (os, "unlink")]
    touched += [(os, "rmdir")]
    instants = 0
    found = set()
    while True:
        folder = tmp_path / str(instants)
        save(folder, 5)
        save(folder, 10)
        try:
            with killed_at(instants, touched, monkeypatch):
                save(folder, 15)
            break
        except Killed:
            instants += 1
        checkpoint = load_checkpoint(folder, warn=pytest.fail)
        assert holds(checkpoint, 10) or holds(checkpoint, 15)
        found.add(checkpoint.step)
        for whole in (folder / "checkpoints").glob("step_??????"):
            read_checkpoint(whole)  # half-removed ones do not keep the name of a checkpoint
        save(folder, 20)
        assert all(not name.endswith(".tmp") for name in names(folder))
    assert found == {10, 15}
    assert instants > 12


def test_a_write_that_fails_half_way_leaves_the_older_checkpoints_alone(tmp_path, monkeypatch):
    save(tmp_path, 5)

    def half(state, file):
        file.write(b"PK\x03\x04half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError, match="disk full"):
        save(tmp_path, 10)
    assert names(tmp_path) == ["last", "step_000005"]
    assert holds(load_checkpoint(tmp_path), 5)


@pytest.mark.parametrize("damage", ["truncated", "zeros", "empty", "missing", "flipped"])
def test_a_damaged_newest_checkpoint_falls_back_with_a_warning_that_names_it(tmp_path, damage):
    save(tmp_path, 5)
    file = save(tmp_path, 10) / "state.pt"
    content = bytearray(file.read_bytes())
    if damage == "missing":
        file.unlink()
    else:
        weight = content.find(make(value=10.0)[0].weight.detach().numpy().tobytes())
        content[weight] ^= 1
        size = len(content)
        kept = {"truncated": content[: size // 2], "zeros": bytes(size), "empty": b"", "flipped": content}
        file.write_bytes(kept[damage])
    warnings = []
    assert holds(load_checkpoint(tmp_path, warn=warnings.append), 5)
    assert len(warnings) == 1
    assert "step_000010" in warnings[0]
    save(tmp_path, 7)  # the run that goes on leaves nothing newer behind than what it writes
    assert names(tmp_path) == ["last", "step_000005", "step_000007"]


def test_any_flipped_byte_is_noticed_or_harmless(tmp_path):
    file = save(tmp_path, 5) / "state.pt"
    whole = file.read_bytes()
    rng = random.Random(0)
    noticed = 0
    for _ in range(150):
        content = bytearray(whole)
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        file.write_bytes(content)
        try:
            checkpoint = read_checkpoint(file.parent)
        except AudiobatError:
            noticed += 1
        else:
            assert holds(checkpoint, 5)
    assert noticed > 30


def test_only_damaged_checkpoints_is_an_error_not_a_fresh_start(tmp_path):
    (save(tmp_path, 5) / "state.pt").write_bytes(b"")
    with pytest.raises(AudiobatError, match="--overwrite"):
        load_checkpoint(tmp_path, warn=lambda sentence: None)


def test_a_pickle_that_runs_code_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "sprung"),))

    folder = save(tmp_path, 5)
    torch.save({"step": 5, "model": Trap()}, folder / "state.pt")
    with pytest.raises(AudiobatError, match="step_000005"):
        read_checkpoint(folder)
    assert not (tmp_path / "sprung").exists()


def test_another_shape_names_the_tensor_both_shapes_and_the_mend(tmp_path):
    save(tmp_path, 5)
    with pytest.raises(AudiobatError, match=r"weight is \[2, 3\] there and \[2, 4\] here.*config.yaml.*--out"):
        restore(load_checkpoint(tmp_path), *make(width=4))


def test_a_tensor_too_few_or_too_many_is_named(tmp_path):
    _, optimizer = make()
    save(tmp_path, 5)
    with pytest.raises(AudiobatError, match=r"bias is \[2\] there and absent here"):
        restore(load_checkpoint(tmp_path), nn.Linear(3, 2, bias=False), optimizer)
    net = nn.Linear(3, 2)
    net.register_buffer("extra", torch.zeros(1))
    with pytest.raises(AudiobatError, match=r"extra is absent there and \[1\] here"):
        restore(load_checkpoint(tmp_path), net, optimizer)


def test_another_grouping_of_the_optimizer_names_the_field(tmp_path):
    save(tmp_path, 5)
    with pytest.raises(AudiobatError, match=r"optim\.decay_1d"):
        restore(load_checkpoint(tmp_path), *make(decay_1d=False))


def test_extra_must_be_plain_json(tmp_path):
    with pytest.raises(TypeError):
        save_checkpoint(tmp_path, 5, *make(), extra={"path": Path("x")})
    assert latest(tmp_path) is None


def test_saving_the_same_step_again_replaces_it(tmp_path):
    shutil.rmtree(save(tmp_path, 5))
    (tmp_path / "checkpoints" / "step_000005").mkdir()
    save(tmp_path, 5)
    assert holds(load_checkpoint(tmp_path), 5)
    assert names(tmp_path) == ["last", "step_000005"]
