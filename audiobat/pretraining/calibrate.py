"""What a run takes on this machine, from its first steps: `audiobat pretrain --dry-run --calibrate`.

In: the config of a run. Out: seconds a step, peak memory and power, measured; hours and kWh of the whole run.

`engine/loop.py` trains the run's own objective with its own optimizer for some seconds and keeps nothing. With
`data.path` the batches are the run's, so that waiting for data counts; without it they are noise. The steps are taken
in a process of their own: its peak memory is the run's alone, and a machine that lacks the memory ends that process
only.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, replace
from itertools import islice, repeat
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

import torch
from torch import Tensor

import audiobat
from audiobat.config import PretrainConfig, from_dict, to_dict
from audiobat.config.user_files import errors_of_user_code
from audiobat.data.loader import AHEAD
from audiobat.data.sampler import clip_order
from audiobat.data.sources.read import read_clips
from audiobat.engine.logs import RunLog
from audiobat.engine.loop import fit
from audiobat.engine.memory import ran_out
from audiobat.engine.power import metered
from audiobat.engine.ranks import Ranks, check_batch, launch, pick_precision
from audiobat.errors import AudiobatError
from audiobat.pretraining.objectives.base import build_objective
from audiobat.pretraining.parts import crops_of, set_up

SECONDS = 10.0  # of steps that are timed
LEAST = 3  # steps, however long they take; the first warms up
WATTS = 10.0  # of a busy CPU core, where no meter can be read: servers 4 to 8, desktops and laptops 8 to 20
TOO_LARGE = "Not even {} steps fit into the memory of {}: use a smaller train.batch_size, mask.clones or encoder."


@dataclass(frozen=True)
class Calibration:
    """What the first steps of a run took, on one of its ranks."""

    where: str  # device, precision and number of ranks
    steps: int  # that were timed
    seconds: float  # a step
    data_wait: float | None  # share of a step in which it waits for data; None: the batches were noise
    memory_bytes: int | None  # the largest that the process, or on a GPU its cache, came to; None: not known here
    watts: float | None  # of all ranks; None: not known here
    meter: str  # where the watts come from

    def describe(self, steps: int) -> str:
        """What a run of `steps` steps takes, as lines of the plan."""
        hours = self.seconds * steps / 3600
        if self.data_wait is None:
            data = "on noise; loading is not in it: give --data"
        else:
            data = f"{self.data_wait:.0%} of it waiting for data"
        memory, energy = "not known on this device", f"not known: {self.meter}"
        if self.memory_bytes is not None:
            memory = f"{self.memory_bytes / 2**30:.2f} GiB a rank; processes that load data are not in it"
        if self.watts is not None:
            energy = f"{hours * self.watts / 1000:.3g} kWh at {self.watts:.0f} W ({self.meter})"
        lines = {
            "measured": f"{self.seconds:.3g} s a step ({data}), over {self.steps} steps on {self.where}",
            "peak memory": memory,
            "time": f"{hours:,.3g} hours for {steps:,} steps",
            "energy": energy,
        }
        return "\n".join(f"{name:>14}  {value}" for name, value in lines.items())


def calibrate_run(config: PretrainConfig, seconds: float = SECONDS) -> Calibration:
    """Train a run of `config` in a process of its own for some `seconds`, three steps at least; nothing is kept.

    Raises:
        AudiobatError: the memory does not suffice, or as `pretrain` for data or a config that cannot be used.
    """
    # Not from the current folder, where a user's `random.py` may lie, but from where this package is.
    command = [sys.executable, "-P", "-m", "audiobat.pretraining.calibrate"]
    places = [str(Path(audiobat.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(places)}
    order = json.dumps({"config": to_dict(config), "seconds": seconds})
    done = subprocess.run(command, input=order, stdout=subprocess.PIPE, text=True, env=environment)
    if done.returncode == -signal.SIGKILL:  # what a system without memory left does
        raise AudiobatError(TOO_LARGE.format(LEAST, "this machine"))
    done.check_returncode()
    answer = json.loads(done.stdout)
    if "error" in answer:
        raise AudiobatError(answer["error"])
    return Calibration(**answer)


class Noise(NamedTuple):
    """A batch without data."""

    waveform: Tensor  # [B, S]
    lengths: None = None


def measure(config: PretrainConfig, seconds: float) -> Calibration:
    """The same in this process, whose whole peak memory counts."""
    with launch(config.train.device) as ranks:
        check_batch(config.train.batch_size, ranks)
        torch.manual_seed(config.train.seed)
        objective = build_objective(config)
        optimizer = set_up(objective, config, ranks.device)
        source = batches(config, ranks)
        train = replace(config.train, log_every=1)
        rows: list[dict[str, Any]] = []

        def steps(until: int | None = None, max_seconds: float | None = None) -> None:
            fit(
                objective,
                optimizer,
                source,
                train,
                config.optim,
                log=RunLog(Path(), main=False),
                ranks=replace(ranks, rank=ranks.rank + 1),  # rank 0 alone writes, and here none is to write
                until=until,
                max_seconds=max_seconds,
                after_step=objective.after_step,
                on_log=rows.append,
            )

        steps(until=LEAST)
        left = seconds - sum(1 / row["steps_per_second"] for row in rows[1:])
        with metered(ranks.device) as power:
            if left > 0:
                steps(max_seconds=left)
        timed = rows[1:]
        computing = median((1 - row["data_wait"]) / row["steps_per_second"] for row in timed)
        # Batches come in bursts, one from each process that loads them: their mean counts, not their median.
        waiting = fmean(row["data_wait"] / row["steps_per_second"] for row in timed)
        total = computing + waiting
        watts, meter = power.watts, "nvidia-smi" if ranks.device.type == "cuda" else "the CPU's own meter"
        if watts is None and ranks.device.type == "cpu":
            threads = torch.get_num_threads()
            watts, meter = WATTS * threads, f"assumed: {WATTS:.0f} W a thread"
        elif watts is None:
            meter = "no meter"
        precision = pick_precision(config.train.precision, ranks.device)
        where = f"{device_name(ranks.device)} in {'fp32' if precision is None else 'bf16'}"
        return Calibration(
            where=where if ranks.world_size == 1 else f"{where}, on each of {ranks.world_size} ranks",
            steps=len(timed),
            seconds=total,
            data_wait=waiting / total if config.data.path else None,
            memory_bytes=peak_memory(ranks.device),
            watts=None if watts is None else watts * ranks.world_size,
            meter=meter,
        )


def batches(config: PretrainConfig, ranks: Ranks) -> Iterator[Any]:
    """This rank's batches: those of a run, or noise where the config names no data."""
    if not config.data.path:
        clips = config.train.batch_size // ranks.world_size
        samples = round(config.data.clip_seconds * config.frontend.sample_rate)
        return repeat(Noise(torch.randn(clips, samples) / 10))
    table = read_clips(config.data.path)
    order = clip_order(table, config.data, config.train.seed)
    # A run soon has used up what was loaded while it started: only later batches come as fast as they can be loaded.
    return islice(iter(crops_of(config, table, order, ranks, 0)), AHEAD * config.data.workers, None)


def device_name(device: torch.device) -> str:
    """The name of a GPU; the number of threads of a CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    count = torch.get_num_threads()
    return f"the CPU with {count} thread{'s' * (count > 1)}" if device.type == "cpu" else str(device)


def peak_memory(device: torch.device) -> int | None:
    """Bytes: on a GPU the largest that torch's cache there came to, on a CPU (Linux) that this process came to."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    status = Path("/proc/self/status")  # getrusage would count what the process that started this one held, too
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if device.type == "cpu" and status.exists() else None
    return int(found[1]) * 1024 if found else None


def main() -> None:
    """Answer the order on stdin, JSON with `config` and `seconds`, by a calibration or an `error` as JSON on stdout."""
    order = json.load(sys.stdin)
    try:
        with redirect_stdout(sys.stderr), errors_of_user_code():  # a user's own class may print
            answer = asdict(measure(from_dict(PretrainConfig, order["config"]), order["seconds"]))
    except AudiobatError as error:
        answer = {"error": str(error)}
    except (RuntimeError, MemoryError, OSError) as error:
        if ran_out(error) is None:
            raise
        answer = {"error": TOO_LARGE.format(LEAST, "the device")}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
