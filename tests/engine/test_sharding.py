"""A divided model trains as a whole one does, and its checkpoints go on by any number of ranks, divided or not.

Run as a program, with a folder, it makes the runs that the tests look at.
"""

import errno
import os
import pickle
import shutil
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from rank_processes import run_program, run_ranks
from torch import nn

from audiobat.config import OptimConfig, TrainConfig
from audiobat.engine.checkpoint import load_checkpoint, read_checkpoint
from audiobat.engine.chunks import sum_in_chunks
from audiobat.engine.logs import RunLog
from audiobat.engine.loop import fit
from audiobat.engine.optim import build_optimizer
from audiobat.engine.ranks import launch
from audiobat.engine.sharding import digests, is_divided, own_part, shard, whole
from audiobat.errors import AudiobatError

STEPS, CUT, BATCH = 10, 5, 8
KINDS, WORLDS = ("ddp", "fsdp2"), (2, 4)
# Where the first half of a run comes from, and what goes on with it: kind and number of ranks.
GO_ON = [
    (("fsdp2", 2), ("fsdp2", 4)),
    (("fsdp2", 4), ("fsdp2", 2)),
    (("fsdp2", 4), ("ddp", 2)),
    (("ddp", 2), ("fsdp2", 4)),
    (("fsdp2", 2), ("ddp", 1)),
    (("fsdp2", 2), ("fsdp2", 1)),
]


class Toy(nn.Module):
    """Regresses a fixed function in chunks; a frozen copy follows. Matrices of 3 rows are less than 4 ranks have."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(6, 7), nn.Linear(7, 3, bias=False)
        self.last.other_name = self.last.weight  # in two places
        self.teacher = nn.Linear(6, 7).requires_grad_(False)
        self.register_buffer("scale", torch.full((), 0.5))
        self.seen_divided = 0

    def forward(self, batch, step):
        def part(x):
            out = self.last(torch.tanh(self.first(x) + self.scale * self.teacher(x)))
            return (out - x.sum(1, keepdim=True)).square().sum() / len(batch["x"]), None

        loss, _ = sum_in_chunks(part, batch["x"].split(1), [], list(self.parameters()))
        assert not any(is_divided(parameter) for parameter in self.parameters())
        return loss, {}

    @torch.no_grad()
    def follow(self, step):
        self.seen_divided += is_divided(self.first.weight)
        for mine, theirs in zip(self.teacher.parameters(), self.first.parameters(), strict=True):
            own_part(mine).lerp_(own_part(theirs), 0.1)
        with whole(self):
            assert self.last.weight.shape == (3, 7)
            assert self.last.other_name is self.last.weight


def batches(start, ranks):
    """Batch k is a function of k; rank r takes its share of the rows."""
    while True:
        x = torch.randn(BATCH, 6, generator=torch.Generator().manual_seed(start)) * 2
        yield {"x": x.chunk(ranks.world_size)[ranks.rank]}
        start += 1


def run(folder: Path, ranks, kind: str, until: int = STEPS):
    model = Toy()
    optimizer = build_optimizer(model.named_parameters(), lr=1.0, weight_decay=0.1, betas=(0.9, 0.95), decay_1d=False)
    checkpoint = load_checkpoint(folder)
    start = checkpoint.step if checkpoint else 0
    train = TrainConfig(
        steps=STEPS, batch_size=BATCH, log_every=1, save_every=CUT, precision="fp32", device="cpu", shard=kind
    )
    optim = OptimConfig(lr=0.02, min_lr=1e-4, warmup_steps=2, grad_clip=0.5)
    with RunLog(folder, start, main=ranks.is_main) as log:
        options = {"log": log, "ranks": ranks, "until": until, "resume": checkpoint, "after_step": model.follow}
        fit(model, optimizer, batches(start, ranks), train, optim, **options)
    assert not any(is_divided(parameter) for parameter in model.parameters())
    assert not any(is_divided(m) for state in optimizer.state.values() for m in state.values())
    divided = kind == "fsdp2" and ranks.world_size > 1
    model.load_state_dict(model.state_dict())  # nothing of the division is left behind
    assert model.seen_divided == (until - start) * divided
    assert checkpoint is None or (checkpoint.path / "parts").exists() == ("fsdp2" in str(folder.parent))
    kept = load_checkpoint(folder)
    for name, value in model.state_dict().items():  # the whole model behind `fit` is the one that was saved
        torch.testing.assert_close(kept.model[name], value, rtol=0, atol=0)
    for number, moments in optimizer.state_dict()["state"].items():
        torch.testing.assert_close(kept.optimizer["state"][number], moments, rtol=0, atol=0)


def first_half_and_whole(world: int, folder: Path) -> None:
    """A run of each kind that is stopped at the cut, and one that is not."""
    with launch("cpu") as ranks:
        for kind in KINDS:
            run(folder / f"{kind}_{world}" / "cut", ranks, kind, until=CUT)
            run(folder / f"{kind}_{world}" / "whole", ranks, kind)


def go_on(world: int, folder: Path) -> None:
    with launch("cpu") as ranks:
        for source, (kind, own) in GO_ON:
            if own == world:
                run(folder / "{}_{}".format(*source) / f"{kind}_{world}", ranks, kind)


def no_room(world: int, folder: Path) -> None:
    """The disk of one rank is full in the second save: both ranks say so, and the first checkpoint stays alone."""
    with launch("cpu") as ranks:

        class Full(Toy):
            def follow(self, step):
                super().follow(step)
                if step == STEPS - 1 and ranks.rank == 1:
                    os.fsync = refuse

        def refuse(descriptor):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "parts")

        globals()["Toy"] = Full
        with pytest.raises(OSError, match="No space left on device"):
            run(folder / "full", ranks, "fsdp2")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharding")
    run_program(__file__, folder)
    return folder


def same(ours, theirs, atol):
    assert ours.step == theirs.step == STEPS
    assert list(ours.model) == list(theirs.model)
    for name, value in ours.model.items():
        torch.testing.assert_close(value, theirs.model[name], rtol=0, atol=atol, msg=name)
    for number, moments in ours.optimizer["state"].items():
        torch.testing.assert_close(moments, theirs.optimizer["state"][number], rtol=1e-4, atol=atol)


@pytest.mark.parametrize("world", WORLDS)
def test_a_divided_model_learns_what_a_whole_one_does(runs, world):
    ours, theirs = (load_checkpoint(runs / f"{kind}_{world}" / "whole") for kind in KINDS)
    same(ours, theirs, atol=1e-6)
    start = Toy().state_dict()
    assert all((value - start[name]).abs().max() > 1e-3 for name, value in ours.model.items() if name != "scale")


@pytest.mark.parametrize(("source", "goal"), GO_ON)
def test_a_run_goes_on_by_another_number_of_ranks_and_the_other_kind(runs, source, goal):
    folder = runs / "{}_{}".format(*source)
    same(load_checkpoint(folder / "{}_{}".format(*goal)), load_checkpoint(folder / "whole"), atol=1e-6)


def test_each_rank_writes_its_rows(runs):
    files = sorted((runs / "fsdp2_4" / "whole" / "checkpoints" / "step_000010" / "parts").iterdir())
    assert len(files) == 4
    assert all(file.suffix == ".safetensors" for file in files)
    one = runs / "fsdp2_2" / "fsdp2_1" / "checkpoints" / "step_000010"  # one process has nothing to divide
    assert [file.name for file in one.iterdir()] == ["state.pt"]


def test_a_full_disk_of_one_rank_is_the_error_of_all_and_leaves_the_older_checkpoint(runs):
    assert [path.name for path in (runs / "full" / "checkpoints").iterdir() if path.is_dir()] == ["step_000005"]
    assert load_checkpoint(runs / "full").step == CUT


@pytest.fixture
def damaged(runs, tmp_path):
    """A copy of a divided run, its newest parts, and what the older checkpoint's step is."""
    shutil.copytree(runs / "fsdp2_2" / "whole", tmp_path / "run")
    return tmp_path / "run", tmp_path / "run" / "checkpoints" / "step_000010" / "parts"


@pytest.mark.parametrize("damage", ["flipped", "truncated", "missing", "more", "all missing"])
def test_damaged_parts_fall_back_to_the_older_checkpoint(damaged, damage):
    run, parts = damaged
    file = sorted(parts.iterdir())[0]
    content = bytearray(file.read_bytes())
    if damage == "missing":
        file.unlink()
    elif damage == "more":
        (parts / "more").touch()
    elif damage == "all missing":
        shutil.rmtree(parts)
    else:
        content[-3] ^= 1
        file.write_bytes(content if damage == "flipped" else content[:-8])
    warnings = []
    assert load_checkpoint(run, warn=warnings.append).step == CUT
    assert len(warnings) == 1
    assert "step_000010" in warnings[0]


@pytest.mark.parametrize("name", [".metadata", "shard-00001-model-00001-of-00001.safetensors", "__0_0.distcp"])
def test_a_pickle_among_the_parts_is_not_run(damaged, name):
    """Not even one whose digest is the one that state.pt has."""
    run, parts = damaged

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(run / "sprung"),)

    (parts / name).write_bytes(pickle.dumps(Trap()))
    state = torch.load(parts.parent / "state.pt", weights_only=True)
    torch.save({**state, "parts": digests(parts)}, parts.parent / "state.pt")
    if name.endswith("safetensors"):
        with pytest.raises(AudiobatError, match="step_000010"):
            read_checkpoint(parts.parent)
    else:
        assert read_checkpoint(parts.parent).step == STEPS
    assert not (run / "sprung").exists()


def test_what_cannot_be_divided_is_named_before_anything_is():
    model = Toy()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.first.own = torch.optim.SGD(model.first.parameters(), lr=0.1)
    with pytest.raises(AudiobatError, match=r"Toy\.first has an optimizer of its own: use ddp"):
        shard(model, optimizer)
    model = Toy()
    model.first.gate = nn.Parameter(torch.zeros(()))
    with pytest.raises(AudiobatError, match=r"first\.gate is a single number: use ddp"):
        shard(model, optimizer)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    run_ranks([partial(first_half_and_whole, folder=place)], WORLDS)
    for source, (kind, own) in GO_ON:
        folder = place / "{}_{}".format(*source)
        shutil.copytree(folder / "cut", folder / f"{kind}_{own}")
    run_ranks([partial(go_on, folder=place)])
    run_ranks([partial(no_room, folder=place)], (2,))
