"""Many heads on one pass over the clips: what training CGP costs alone, and with sixteen other heads beside it.

python benchmarks/one_pass.py [BATCH] [ROUNDS] [DEVICE]: `cgp` (K = 10,000) alone against it with `protobin` (10,000),
`linear`, `linear_cgp`, `attentive` and a linear probe of each of 12 blocks, on noise of 10 s, 512 patches, 527 classes;
encoded by a bat_base of random weights at every step, and with features at hand. Table 6's batch is 48; the default is
8, as two cores take a minute to encode 48 clips, so that a head's optimiser weighs six times as much as in the paper's.
Medians; all ways take turns in one process.
"""

import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import soundfile
import torch

from audiobat.config import HeadConfig, PretrainConfig, ProbeTrainConfig
from audiobat.data.build import clip_table
from audiobat.evaluation.labels import Task
from audiobat.models.encoder import AudioEncoder
from audiobat.probing.cache import FeatureSource, cache_features
from audiobat.probing.jobs import HeadJob, layer_jobs
from audiobat.probing.training import HeadTrainer

SECONDS, CLASSES = 10.0, 527
KINDS = ("cgp", "protobin", "linear", "linear_cgp", "attentive")
TRAIN = ProbeTrainConfig()  # Table 6, AS-20K

Times = dict[str, list[float]]  # what -> seconds in each round


def one_step(source: FeatureSource, trainers: list[HeadTrainer], task: Task, rows: np.ndarray, step: int) -> Times:
    """Seconds of a training step of some heads: in all, in making the features, and in each head."""
    seconds: Times = defaultdict(list)
    start = now(source)
    [(clip_ids, inputs)] = source.inputs({trainer.reads for trainer in trainers}, [rows])
    labels = task.labels(clip_ids, inputs[trainers[0].reads]).to(source.device)
    seconds["features"].append(now(source) - start)
    for trainer in trainers:
        before = now(source)
        trainer.train_step(step, inputs[trainer.reads], labels)
        name = "linear of every block" if trainer.job.name.startswith("linear_block") else trainer.job.name
        seconds[name].append(now(source) - before)
    seconds["in all"].append(now(source) - start)
    return {name: [sum(parts)] for name, parts in seconds.items()}


def now(source: FeatureSource) -> float:
    """When all that the device was asked for is done."""
    if source.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def medians(rounds: list[Times]) -> dict[str, float]:
    """Of each name."""
    return {name: statistics.median(one[name][0] for one in rounds) for name in rounds[0]}


def main(batch: int = 8, rounds: int = 3, device: str = "cpu") -> None:
    """Print what each head takes of a step, and the ratio of all to CGP alone."""
    config = PretrainConfig().model
    rate = config.frontend.sample_rate
    torch.manual_seed(0)
    encoder = AudioEncoder(config).eval()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        names = [f"{i}.wav" for i in range(batch)]
        for name in names:
            soundfile.write(Path(folder) / name, rng.normal(scale=0.1, size=int(SECONDS * rate)), rate)
        classes = [str(c) for c in range(CLASSES)]
        table = clip_table(folder, names, classes=classes, labels=[[classes[i]] for i in range(batch)])
        kept = cache_features(encoder, table, cache_gb=1e3, device=device, progress=False)
        anew = FeatureSource(encoder, table, kept.indices, {}, None, kept.device, kept.freq_patches)
        rows = np.arange(batch)
        task = Task.of_matrix(torch.rand(batch, CLASSES) < 0.005, False)
        jobs = [HeadJob(kind, HeadConfig(kind), TRAIN) for kind in KINDS] + layer_jobs(config.encoder.depth, TRAIN)
        trainers = [HeadTrainer(job, kept, task) for job in jobs]
        steps: dict[tuple[str, int], list[Times]] = defaultdict(list)
        for step in range(rounds + 1):
            for way, source in (("encoded", anew), ("at hand", kept)):
                for count in (1, len(jobs)):
                    steps[way, count].append(one_step(source, trainers[:count], task, rows, step))
    taken = {key: medians(found[1:]) for key, found in steps.items()}  # the first ones warm up
    print(f"{batch} clips a step, {torch.get_num_threads()} threads, {kept.device}, medians of {rounds} rounds\n")
    print("| features | making them, s | " + " | ".join(list(taken["encoded", len(jobs)])[1:-1]) + " |")
    print("| --- " * (len(taken["encoded", len(jobs)])) + "|")
    for way in ("encoded", "at hand"):
        parts = list(taken[way, len(jobs)].items())[:-1]
        print(f"| {way} | " + " | ".join(f"{seconds:.3f}" for _, seconds in parts) + " |")
    print("\n| features | cgp alone, s | all 17 heads, s | ratio | one head after the other, s |")
    print("| --- | --- | --- | --- | --- |")
    for way in ("encoded", "at hand"):
        alone, together = taken[way, 1]["in all"], taken[way, len(jobs)]
        singly = together["in all"] + (len(jobs) - 1) * together["features"]
        print(f"| {way} | {alone:.2f} | {together['in all']:.2f} | {together['in all'] / alone:.2f} | {singly:.2f} |")
    print("\nOne after the other is computed: all heads' own seconds, and 17 times those of making the features.")


if __name__ == "__main__":
    arguments = sys.argv[1:]
    main(*map(int, arguments[:2]), *arguments[2:])
