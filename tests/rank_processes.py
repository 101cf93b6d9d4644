"""Several ranks on one machine, over gloo: forked from a program that has imported torch once, as imports cost most.

A test file starts itself as a program, `run_program(__file__, folder)`; the program calls `run_ranks` for its tasks.
"""

import os
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch._dynamo  # a second of work that DDP would do in every process

TESTS = Path(__file__).parent


def run_program(file: str, folder: Path) -> None:
    """Run a test file as a program that works in `folder`, on one thread a process."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{TESTS.parent}:{TESTS}"}
    done = subprocess.run([sys.executable, file, str(folder)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def run_ranks(tasks: Sequence[Callable[[int], None]], worlds: Sequence[int] = (1, 2, 4)) -> None:
    """Run each task, which is told the number of ranks, on every number of ranks at once; raise if one fails."""
    processes = []
    for world in worlds:
        ports = free_ports(len(tasks))
        processes += [fork(rank, world, tasks, ports) for rank in range(world)]
    codes = [os.waitpid(process, 0)[1] for process in processes]
    assert not any(codes), codes


def fork(rank: int, world: int, tasks: Sequence[Callable[[int], None]], ports: Sequence[int]) -> int:
    """The id of a process that runs the tasks one after the other as one rank, a process group for each."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        torch.set_num_threads(1)
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1"}
        for task, port in zip(tasks, ports, strict=True):
            os.environ["MASTER_PORT"] = str(port)
            task(world)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nothing listens to."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
