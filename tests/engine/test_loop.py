"""The step loop: signals, resuming bit for bit, time limit, broken losses and data, and two ranks against one.

Run as a program it is the run that the tests stop from outside: `python test_loop.py '{"folder": ..., ...}'`.
"""

import json
import math
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from killing import Killed, killed_at
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.data import DataLoader, IterableDataset

from audiobat.config import OptimConfig, TrainConfig
from audiobat.engine import loop
from audiobat.engine.checkpoint import latest, load_checkpoint
from audiobat.engine.files import clear_leftovers
from audiobat.engine.logs import RunLog
from audiobat.engine.loop import FitResult, fit, to_device
from audiobat.engine.optim import build_optimizer
from audiobat.engine.ranks import Ranks, launch
from audiobat.engine.run_folder import RUN_FILES
from audiobat.errors import AudiobatError

ALONE = Ranks(torch.device("cpu"))
STEPS, BATCH = 20, 8
PLACES = os.pathsep.join(map(str, Path(__file__).parents[1:3]))  # of what this file imports as a program
TIMES = {"steps_per_second", "clips_per_second", "data_wait", "seconds"}


class Toy(nn.Module):
    """Regresses a fixed function; a buffer follows the weights as an EMA teacher does."""

    def __init__(self, dropout: float = 0.2):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Dropout(dropout), nn.Linear(16, 1))
        self.register_buffer("teacher", self.net[0].weight.detach().clone())

    def forward(self, batch, step):
        error = self.net(batch["x"]) - batch["x"].sum(1, keepdim=True)
        loss = error.float().square().mean()
        stats = {"late": loss.new_tensor(float(step))} if step >= 10 else {}
        return loss, {"std": error.detach().float().std()} | stats

    def follow(self, step):
        self.teacher.lerp_(self.net[0].weight.detach(), 0.1)


class Batches(IterableDataset):
    """Batch k is a function of k; rank r takes every world_size-th row."""

    def __init__(self, start=0, ranks=ALONE):
        self.start, self.ranks = start, ranks

    def __iter__(self):
        k = self.start
        while True:
            x = torch.randn(BATCH, 6, generator=torch.Generator().manual_seed(k))
            yield {"x": x[self.ranks.rank :: self.ranks.world_size]}
            k += 1


def run(folder, *, model=None, ranks=ALONE, data=None, after=None, steps=STEPS, workers=0, **options) -> FitResult:
    """Train the toy in `folder`, resuming what is there."""
    model = model or Toy()
    optimizer = build_optimizer(model.named_parameters(), lr=1.0, weight_decay=0.1, betas=(0.9, 0.95), decay_1d=False)
    checkpoint = load_checkpoint(folder)
    start = checkpoint.step if checkpoint else 0
    data = DataLoader(Batches(start, ranks), batch_size=None, num_workers=workers) if data is None else data

    def after_step(step):
        model.follow(step)
        if after is not None:
            after(step)

    settings = {"log_every": 4, "save_every": 5, "batch_size": BATCH, "steps": STEPS, "precision": "fp32"}
    given = {name: options.pop(name) for name in vars(TrainConfig()) if name in options}
    train = TrainConfig(**(settings | given))
    own = {name: options.pop(name) for name in ("grad_clip", "warmup") if name in options}
    optim = OptimConfig(lr=0.02, min_lr=1e-4, warmup_steps=5, **own)
    with RunLog(folder, start, main=ranks.is_main) as log:
        return fit(
            model,
            optimizer,
            data,
            train,
            optim,
            log=log,
            ranks=ranks,
            until=steps,
            resume=checkpoint,
            after_step=after_step,
            **options,
        )


def rows(folder):
    """The rows without what depends on the clock."""
    lines = (Path(folder) / "metrics.jsonl").read_text().splitlines()
    return [{name: v for name, v in json.loads(line).items() if name not in TIMES} for line in lines]


def assert_same(a, b):
    """Two checkpoints are equal bit for bit."""
    assert a.step == b.step
    for name in a.model:
        assert torch.equal(a.model[name], b.model[name]), name
    for key, moments in a.optimizer["state"].items():
        for name, value in moments.items():
            assert torch.equal(value, b.optimizer["state"][key][name]), name


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    assert run(folder) == FitResult(STEPS, "done")
    return folder


def raise_signal_at(step, number):
    return lambda now: os.kill(os.getpid(), number) if now == step else None


def test_a_run_learns_logs_and_saves(uninterrupted):
    logged = rows(uninterrupted)
    assert [row["step"] for row in logged] == [4, 8, 12, 16, 20]
    assert logged[-1]["loss"] < 0.8 * logged[0]["loss"]
    assert logged[-1]["lr"] == 1e-4
    assert logged[-1]["late"] == (16 + 17 + 18 + 19) / 4
    assert logged[2]["late"] == 10.5  # the mean over the two steps that had it
    assert [path.name for path in sorted((uninterrupted / "checkpoints").glob("step*"))] == [
        "step_000015",
        "step_000020",
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("step", [0, 6, 19])
def test_stopped_anywhere_and_resumed_is_the_same_run_bit_for_bit(tmp_path, uninterrupted, number, step):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    result = run(tmp_path, after=raise_signal_at(step, number))
    assert result == FitResult(step + 1, "signal" if step + 1 < STEPS else "done")
    assert result.stopped == (step + 1 < STEPS)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    torch.manual_seed(123)  # whatever else used the generator in between
    assert run(tmp_path) == FitResult(STEPS, "done")
    assert rows(tmp_path) == rows(uninterrupted)
    assert_same(load_checkpoint(tmp_path), load_checkpoint(uninterrupted))


def test_a_second_ctrl_c_aborts(tmp_path):
    def twice(step):
        if step == 6:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, after=twice)
    assert latest(tmp_path).name == "step_000005"


def test_a_kill_at_any_instant_loses_no_row_and_leaves_no_half_file(tmp_path, monkeypatch):
    """Kill before and after every call that changes the disk; the last row ends in the middle of its period."""
    options = {"steps": 6, "log_every": 4, "save_every": 3, "keep": 1}
    run(tmp_path / "whole", **options)
    assert [row["step"] for row in rows(tmp_path / "whole")] == [4, 6]
    touched = [(torch, "save"), (Path, "mkdir"), (Path, "rename"), (Path, "replace"), (os, "unlink"), (os, "rmdir")]
    touched += [(RunLog, "write")]
    half_files = 0  # folders in which a kill left something half-written
    for instant in range(1000):
        folder, killed = tmp_path / str(instant), False
        try:
            with killed_at(instant, touched, monkeypatch):
                run(folder, **options)
        except Killed:
            killed = True
        half_files += any(folder.rglob("*.tmp"))
        for name in RUN_FILES:  # as `prepare_run` does
            clear_leftovers(folder / name)
        run(folder, **options)
        assert rows(folder) == rows(tmp_path / "whole")
        assert not list(folder.rglob("*.tmp"))
        assert sorted(os.listdir(folder / "checkpoints")) == ["last", "step_000006"]
        assert (folder / "checkpoints" / "last").read_text() == "step_000006\n"
        if not killed:
            break
    assert instant > 30
    assert half_files > 5
    assert_same(load_checkpoint(folder), load_checkpoint(tmp_path / "whole"))


def test_a_finished_run_is_left_alone(tmp_path, uninterrupted):
    before = (uninterrupted / "metrics.jsonl").read_text()
    assert run(uninterrupted, data=[]) == FitResult(STEPS, "done")
    assert (uninterrupted / "metrics.jsonl").read_text() == before


def test_the_time_limit_ends_the_run_with_a_row_and_a_checkpoint(tmp_path, uninterrupted, capsys, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(loop, "monotonic", lambda: clock[0])
    result = run(tmp_path, after=lambda step: clock.__setitem__(0, clock[0] + 0.1), max_seconds=0.55)
    assert result.reason == "time"
    assert result.step == 6  # the sixth step starts at 0.5 s, the seventh would start at 0.6 s
    assert not result.stopped
    assert latest(tmp_path).name == f"step_{result.step:06d}"
    assert [(row["step"], row.get("partial")) for row in rows(tmp_path)] == [(4, None), (6, True)]
    assert "time of 0.55 s is up" in capsys.readouterr().err
    run(tmp_path)
    assert rows(tmp_path) == rows(uninterrupted)  # the rest of the partial row was taken into the next


class Breaks(Toy):
    """Its loss, or only its gradient, is NaN in one step."""

    def __init__(self, at, only_gradient=False):
        super().__init__()
        self.at, self.only_gradient = at, only_gradient

    def forward(self, batch, step):
        loss, stats = super().forward(batch, step)
        if step == self.at:
            zero = loss * 0
            loss = loss + (zero.sqrt() if self.only_gradient else zero / 0)
        return loss, stats


def test_a_loss_that_is_not_finite_names_its_step_and_is_never_saved(tmp_path):
    with pytest.raises(AudiobatError, match=r"loss of step 5 is not finite.*step_000004.*optim.lr.*optim.grad_clip"):
        run(tmp_path, model=Breaks(5), save_every=2, log_every=4)
    assert latest(tmp_path).name == "step_000004"
    assert [row["step"] for row in rows(tmp_path)] == [4]


@dataclass(frozen=True)
class Named:
    """A batch that knows the names of what is in it."""

    x: torch.Tensor
    keys: list[str]

    def __getitem__(self, name):
        return getattr(self, name)

    def to(self, device, non_blocking):
        return replace(self, x=self.x.to(device))


def named(count, start=0, ranks=ALONE):
    for step, batch in enumerate(Batches(start, ranks), start):
        yield Named(batch["x"], [f"step {step}, rank {ranks.rank}, clip {i}" for i in range(count)])


def test_a_loss_that_is_not_finite_names_its_batch(tmp_path):
    few = r"loss of step 5 is not finite \(its batch: step 5, rank 0, clip 0, step 5, rank 0, clip 1\): resume"
    with pytest.raises(AudiobatError, match=few):
        run(tmp_path / "few", model=Breaks(5), data=named(2), save_every=3)
    with pytest.raises(
        AudiobatError, match=r"step 5, rank 0, clip 7 and 32 more, see log\.txt\): resume from step_000005"
    ):
        run(tmp_path / "many", model=Breaks(5), data=named(40), log_every=1, save_every=5)
    listed = (tmp_path / "many" / "log.txt").read_text().splitlines()[-1]
    assert all(f"step 5, rank 0, clip {i}" in listed for i in range(40))
    assert "step 4" not in listed


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    with pytest.raises(AudiobatError, match=r"weights are not finite.*start again"):
        run(tmp_path, model=Breaks(4, only_gradient=True), save_every=5)
    assert latest(tmp_path) is None


def test_data_that_end_are_named(tmp_path):
    with pytest.raises(AudiobatError, match="ended after step 3 of 20"):
        run(tmp_path, data=islice(Batches(), 3))


def failing_data(told):
    yield from islice(Batches(), 3)
    if told:
        os.kill(os.getpid(), signal.SIGTERM)
    raise RuntimeError("a loading worker died")


def test_loading_that_fails_is_an_error_unless_a_signal_came_first(tmp_path):
    with pytest.raises(RuntimeError, match="worker died"):
        run(tmp_path / "error", data=failing_data(told=False))
    assert run(tmp_path / "signal", data=failing_data(told=True)) == FitResult(3, "signal")
    assert latest(tmp_path / "signal").name == "step_000003"


def test_a_checkpoint_of_another_shape_stops_before_the_first_step(tmp_path, uninterrupted):
    wide = Toy()
    wide.net[3] = nn.Linear(16, 2)
    with pytest.raises(AudiobatError, match=r"net.3.weight is \[1, 16\] there and \[2, 16\] here"):
        run(uninterrupted, model=wide, steps=30)


@pytest.mark.parametrize(
    ("kind", "warmup"),
    [("linear", [1e-4, 0.00408, 0.00806, 0.01204, 0.01602]), ("floored", [1e-4, 0.004, 0.008, 0.012, 0.016])],
)
def test_every_step_has_the_learning_rate_of_its_own_number(tmp_path, kind, warmup):
    rates = []
    handle = register_optimizer_step_pre_hook(
        lambda optimizer, *_: rates.append([group["lr"] for group in optimizer.param_groups])
    )
    try:
        run(tmp_path, after=raise_signal_at(6, signal.SIGTERM), warmup=kind)
        run(tmp_path, warmup=kind)  # resumed
    finally:
        handle.remove()
    decay = [1e-4 + (0.02 - 1e-4) * (1 + math.cos(math.pi * (step - 5) / (STEPS - 6))) / 2 for step in range(5, STEPS)]
    assert rates == [pytest.approx([rate, rate]) for rate in warmup + decay]
    logged = {row["step"]: row["lr"] for row in rows(tmp_path)}
    assert logged == pytest.approx({step: (warmup + decay)[step - 1] for step in (4, 8, 12, 16, 20)})


def test_gradients_are_clipped_and_their_norm_is_logged(tmp_path):
    norms = []

    def note_norm(optimizer, *_):
        norms.append(nn.utils.get_total_norm([p.grad for g in optimizer.param_groups for p in g["params"]]))

    handle = register_optimizer_step_pre_hook(note_norm)
    try:
        run(tmp_path, grad_clip=1e-3, steps=4)
    finally:
        handle.remove()
    assert rows(tmp_path)[0]["grad_norm"] > 0.1
    torch.testing.assert_close(torch.stack(norms), torch.full((4,), 1e-3), rtol=1e-2, atol=0)


class OwnOptimizer(Toy):
    """Moves a codebook by an optimizer of its own, whose moments go into checkpoints as extra state."""

    def __init__(self):
        super().__init__()
        self.codebook = nn.Parameter(torch.zeros(3), requires_grad=False)
        self.own = torch.optim.Adam([self.codebook], lr=0.1)

    def follow(self, step):
        super().follow(step)
        self.codebook.grad = self.codebook - self.teacher.mean() * (step + 1)
        self.own.step()

    def get_extra_state(self):
        return self.own.state_dict()

    def set_extra_state(self, state):
        self.own.load_state_dict(state)


def test_a_second_optimizer_of_the_models_own_resumes_bit_for_bit(tmp_path):
    run(tmp_path / "whole", model=OwnOptimizer())
    run(tmp_path / "parts", model=OwnOptimizer(), after=raise_signal_at(6, signal.SIGTERM))
    resumed = OwnOptimizer()
    run(tmp_path / "parts", model=resumed)
    whole = load_checkpoint(tmp_path / "whole")
    assert torch.equal(resumed.codebook, whole.model["codebook"])
    assert resumed.own.state[resumed.codebook]["step"] == STEPS
    with pytest.raises(AudiobatError, match="does not fit this model: codebook is"):
        run(tmp_path / "whole", model=Toy(), steps=30)


def test_autocast_reaches_the_model(tmp_path):
    seen = []
    for precision in ("fp32", "bf16"):
        model = Toy()
        model.net[0].register_forward_hook(lambda layer, inputs, output: seen.append(output.dtype))
        run(tmp_path / precision, model=model, steps=1, precision=precision)
    assert seen == [torch.float32, torch.bfloat16]


def test_rows_reach_on_log_and_its_error_ends_the_run(tmp_path):
    seen = []

    def collapsed(row):
        seen.append(row["step"])
        if row["step"] == 8:
            raise AudiobatError("The target collapsed.")

    with pytest.raises(AudiobatError, match="collapsed"):
        run(tmp_path, on_log=collapsed)
    assert seen == [4, 8]


def test_waiting_for_data_is_measured(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(loop, "monotonic", lambda: clock[0])

    def pass_time(seconds):
        clock[0] += seconds

    def slow():
        for batch in Batches():
            pass_time(0.3)
            yield batch

    rows = []
    run(tmp_path, data=slow(), steps=4, on_log=rows.append, after=lambda step: pass_time(0.1))
    assert rows[0]["data_wait"] == pytest.approx(0.75)
    assert rows[0]["steps_per_second"] == pytest.approx(2.5)
    assert rows[0]["clips_per_second"] == pytest.approx(BATCH * 2.5)


def test_tensors_anywhere_in_a_batch_are_moved():
    batch = {"a": torch.zeros(1), "b": [torch.zeros(2), (torch.zeros(3), "name")], "n": 5}
    moved = to_device(batch, torch.device("meta"))
    assert [t.device.type for t in (moved["a"], moved["b"][0], moved["b"][1][0])] == ["meta"] * 3
    assert (moved["b"][1][1], moved["n"]) == ("name", 5)


def start(folder, rank=0, world=1, port=0, **options):
    """Start this file as a program that waits in step 7; it leads its own process group."""
    environment = os.environ | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = PLACES
    command = [sys.executable, __file__, json.dumps({"folder": str(folder), **options})]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def main(folder, die_in_save=False, **options):
    def wait_in_step_7(step):
        if step == 7:
            print("step 7", flush=True)
            while not (Path(folder) / "go").exists():
                time.sleep(0.01)

    if die_in_save:
        torch.save = lambda state, file: os.kill(os.getpid(), signal.SIGKILL)
    with launch("cpu") as ranks:
        model = Toy(dropout=0.2 if ranks.world_size == 1 else 0.0)
        result = run(folder, model=model, ranks=ranks, after=wait_in_step_7, **options)
        print(json.dumps([result.step, result.reason]))
        if ranks.world_size > 1:
            breaks = Breaks(9 if ranks.rank == 1 else -1)
            try:
                run(folder, model=breaks, ranks=ranks, data=named(2, result.step, ranks), log_every=4)
            except AudiobatError as error:
                print(error)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_group_with_loading_workers_is_a_clean_stop(tmp_path, uninterrupted, number):
    process = start(tmp_path, workers=1)
    assert process.stdout.readline() == "step 7\n"
    os.killpg(process.pid, number)
    time.sleep(0.2)
    (tmp_path / "go").touch()
    out, err = process.communicate(timeout=600)
    assert (process.returncode, out) == (0, '[8, "signal"]\n'), err
    assert "Stopped by a signal after step 8 of 20" in err
    assert "Traceback" not in err
    assert run(tmp_path) == FitResult(STEPS, "done")
    assert rows(tmp_path) == rows(uninterrupted)
    assert_same(load_checkpoint(tmp_path), load_checkpoint(uninterrupted))


def test_sigterm_still_ends_a_process_forked_during_the_run(tmp_path):
    """A pool that loads data is ended with SIGTERM; noting it for later would leave its parent waiting for ever."""
    codes = []

    def fork(step):
        context = multiprocessing.get_context("fork")
        runs = context.Event()
        # Short sleeps: a handler that is due just before a long one would wait for its end.
        child = context.Process(target=lambda: (runs.set(), [time.sleep(0.01) for _ in range(60_000)]))
        child.start()
        assert runs.wait(300)  # Python drops a signal that arrives while it forks
        child.terminate()
        child.join(300)
        codes.append(child.exitcode)

    assert run(tmp_path, after=fork, steps=1) == FitResult(1, "done")
    assert codes == [-signal.SIGTERM]


def test_kill_9_in_the_middle_of_a_save_loses_only_that_save(tmp_path, uninterrupted):
    run(tmp_path, after=raise_signal_at(5, signal.SIGTERM))
    process = start(tmp_path, die_in_save=True)
    process.stdout.readline()
    (tmp_path / "go").touch()
    process.communicate(timeout=600)
    assert process.returncode == -signal.SIGKILL
    assert (tmp_path / "checkpoints" / "step_000010.tmp").exists()
    assert latest(tmp_path).name == "step_000006"
    assert run(tmp_path) == FitResult(STEPS, "done")
    assert rows(tmp_path) == rows(uninterrupted)
    assert_same(load_checkpoint(tmp_path), load_checkpoint(uninterrupted))
    assert not list((tmp_path / "checkpoints").glob("*.tmp"))


def test_two_ranks_with_half_the_batch_each_equal_one_and_stop_together(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    both = [start(tmp_path / "two", rank, 2, port) for rank in (0, 1)]
    for process in both:
        assert process.stdout.readline() == "step 7\n"
    both[1].send_signal(signal.SIGTERM)  # one rank alone is told
    time.sleep(0.2)
    (tmp_path / "two" / "go").touch()
    for process in both:
        out, err = process.communicate(timeout=600)
        stopped, broke = out.splitlines()
        assert (process.returncode, stopped) == (0, '[8, "signal"]'), err
        # The loss of rank 1 alone broke in what both did next.
        assert "step 9 is not finite (its batch: step 9, rank 1, clip 0, step 9, rank 1, clip 1): resume" in broke
    run(tmp_path / "one", model=Toy(dropout=0.0), after=raise_signal_at(7, signal.SIGTERM))
    two, one = load_checkpoint(tmp_path / "two"), load_checkpoint(tmp_path / "one")
    for name, weight in one.model.items():
        torch.testing.assert_close(two.model[name], weight, rtol=1e-5, atol=1e-6)
    assert [row["step"] for row in rows(tmp_path / "two")] == [4, 8]
    for row_two, row_one in zip(rows(tmp_path / "two"), rows(tmp_path / "one"), strict=True):
        assert row_two["loss"] == pytest.approx(row_one["loss"], rel=1e-5)


def train_and_die(folder, killed):
    """Train as one of torchrun's ranks; in step 12 rank `killed` kills itself, once."""
    with launch("cpu") as ranks:
        dies = ranks.rank == killed and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
        after = raise_signal_at(12, signal.SIGKILL) if dies else None
        run(folder, model=Toy(dropout=0.0), ranks=ranks, after=after)


def test_torchrun_starts_again_after_a_rank_was_killed_and_the_weights_are_those_of_an_undisturbed_run(tmp_path):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": PLACES}
    for name, killed in (("whole", None), ("killed", 0)):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        order = json.dumps({"folder": str(tmp_path / name), "killed": killed})
        done = subprocess.run(
            [*command, "--max-restarts=1", __file__, order],
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr
    assert "Rank 0 " in done.stderr
    assert "is gone: it crashed or was killed" in done.stderr
    assert_same(load_checkpoint(tmp_path / "killed"), load_checkpoint(tmp_path / "whole"))
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")


if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    train_and_die(**options) if "killed" in options else main(**options)
