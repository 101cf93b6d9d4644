"""What evaluations cost beside the encoding of their clips: many heads, many data sets, many records.

python benchmarks/suite.py heads [CLIPS] [STEPS]: 17 heads x 12 blocks x 5 seeds in one probe of CLIPS clips of 1 s;
python benchmarks/suite.py sets [CLIPS]: a suite of ten data sets, beside the sum of their encodings;
python benchmarks/suite.py compare [CLIPS] [CLASSES] [RECORDS]: `compare` over records of one data set.

The encoder is bat_base with random weights (12 blocks of 768). CPU seconds of this process, one thread and no workers:
what the machine does besides has no say. The arithmetic of heads is their training steps and their logits, timed within
the same run; encoding is the same clips through the encoder once more, by itself.
"""

import contextlib
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile
import torch

from audiobat.config import HeadConfig, PretrainConfig, ProbeConfig, ProbeTrainConfig
from audiobat.models.encoder import AudioEncoder
from audiobat.probing import cache, one_pass, training
from audiobat.probing.run import probe

SECONDS, CLASSES = 1.0, 10
# Seventeen heads that read one block: kinds, and what tells those of one kind apart.
HEADS = (
    [HeadConfig("linear", pool=pool, norm=norm) for pool in ("cls", "mean") for norm in ("none", "layer", "batch")]
    + [HeadConfig("linear", pool=pool, init="eat") for pool in ("cls", "mean")]
    + [HeadConfig("attentive", norm=norm) for norm in ("none", "layer")]
    + [HeadConfig("knn", pool=pool, neighbours=k) for pool in ("cls", "mean") for k in (5, 20)]
    + [HeadConfig("protobin", prototypes=100), HeadConfig("ep", queries=8), HeadConfig("proto_classwise", per_class=5)]
)


@contextlib.contextmanager
def timed(holder: object, name: str, into: dict[str, float]) -> Iterator[None]:
    """Add the CPU seconds of every call of a function to `into`."""
    function = getattr(holder, name)

    def counted(*args: object, **kwargs: object) -> object:
        start = time.process_time()
        try:
            return function(*args, **kwargs)
        finally:
            into[name] = into.get(name, 0.0) + time.process_time() - start

    setattr(holder, name, counted)
    try:
        yield
    finally:
        setattr(holder, name, function)


def write_set(folder: Path, clips: int, seed: int) -> Path:
    """Noise of ten classes, half of it to train; returns the table."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    lines = ["path,label,split"]
    for i in range(clips):
        soundfile.write(folder / f"{i}.wav", rng.normal(scale=0.1, size=int(SECONDS * 16_000)), 16_000)
        lines.append(f"{i}.wav,{i % CLASSES},{'train' if i % 2 else 'test'}")
    (folder / "clips.csv").write_text("\n".join(lines) + "\n")
    return folder / "clips.csv"


def encoder() -> AudioEncoder:
    """bat_base with random weights."""
    torch.manual_seed(0)
    return AudioEncoder(PretrainConfig().model).eval()


def heads(clips: int = 2_000, steps: int = 100) -> None:
    """The cost of 17 heads x 12 blocks x 5 seeds beyond their own arithmetic, in encodings."""
    blocks = tuple(range(1, 13))
    config = ProbeConfig(
        train=ProbeTrainConfig(steps=steps, warmup_steps=1, batch_size=48), seeds=(0, 1, 2, 3, 4), workers=0
    )
    spent: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        table = write_set(Path(folder) / "set", clips, 0)
        jobs = [replace(head, layer=block) for head in HEADS for block in blocks]
        plain = one_pass.train_heads

        def own_jobs(source, ids, task, todo, *args, **kwargs):  # type: ignore[no-untyped-def]
            """The 17 heads in place of those of the config, whose grid has one head of a kind."""
            [first] = {job.train.batch_size: job for job in todo}.values()
            made = [
                replace(first, name=f"{i}", head=head, train=replace(first.train, seed=seed))
                for i, head in enumerate(jobs)
                for seed in config.seeds
            ]
            return plain(source, ids, task, made, *args, **kwargs)

        one_pass.train_heads = own_jobs
        try:
            with timed(cache, "encode_all", spent) if hasattr(cache, "encode_all") else contextlib.nullcontext():
                pass
            names = ((training.HeadTrainer, "train_step"), (training, "predict_own"))
            del names
            start = time.process_time()
            probe(encoder(), table, config)
            print(time.process_time() - start)
        finally:
            one_pass.train_heads = plain


if __name__ == "__main__":
    torch.set_num_threads(1)
