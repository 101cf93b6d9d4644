"""ESC-50's five folds and five seeds: features kept after one pass, against a bat_base that encodes at every step.

python benchmarks/fold_probes.py [ROUNDS] [DEVICE]: 2,000 clips of 5 s (noise), 50 classes, the paper's 4,000 steps of
48 clips for each training, K = 10,000. The parts are measured on 48 clips: encoding a batch, fetching it from a file
that memory holds, a step of each head. The rest is arithmetic, as the slow ways take weeks:

    kept    2,000 clips encoded, then a fetch for each step of a fold, and a step for each of its heads and five seeds
    plain   a batch encoded and a step, for each step of each fold, seed and head: every training in a run of its own
    shared  a batch encoded for each step of a fold, and a step for each of its heads and five seeds: the engine's way
            where features fit neither in memory nor on the disk

A head that takes a tenth of the encoder's time gains ten times at most, however cheap the fetch is: cgp and protobin.
"""

import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import soundfile
import torch
from one_pass import KINDS, Times, medians, one_step

from audiobat.config import HeadConfig, PretrainConfig, ProbeConfig, from_dict
from audiobat.config.presets import preset_fields
from audiobat.data.build import clip_table
from audiobat.evaluation.labels import Task
from audiobat.models.encoder import AudioEncoder
from audiobat.probing.cache import FeatureSource, cache_features
from audiobat.probing.jobs import HeadJob, layer_jobs
from audiobat.probing.training import HeadTrainer

CLIPS, SECONDS, CLASSES, FOLDS, SEEDS = 2_000, 5.0, 50, 5, 5
TRAIN = from_dict(ProbeConfig, preset_fields("paper", "esc50")).train


def ways(encode: float, fetch: float, step: float, heads: int) -> tuple[float, float, float]:
    """Seconds of the whole: kept, plain, shared; from those of a batch encoded, one fetched, and a step of `heads`."""
    batches = FOLDS * TRAIN.steps  # of all folds, each for all seeds
    learning = batches * SEEDS * step
    return (
        CLIPS / TRAIN.batch_size * encode + batches * fetch + learning,
        batches * SEEDS * heads * encode + learning,
        batches * encode + learning,
    )


def main(rounds: int = 3, device: str = "cpu") -> None:
    """Print a row for each head, and one for all of them with the probes of 12 blocks."""
    config = PretrainConfig().model
    rate = config.frontend.sample_rate
    torch.manual_seed(0)
    encoder = AudioEncoder(config).eval()
    rng = np.random.default_rng(0)
    rows = np.arange(TRAIN.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        names = [f"{i}.wav" for i in rows]
        for name in names:
            soundfile.write(Path(folder) / name, rng.normal(scale=0.1, size=int(SECONDS * rate)), rate)
        labels = [[str(i % CLASSES)] for i in rows]
        table = clip_table(folder, names, classes=[str(c) for c in range(CLASSES)], labels=labels)
        kept = cache_features(encoder, table, cache_dir=Path(folder) / "kept", device=device, progress=False)
        anew = FeatureSource(encoder, table, kept.indices, {}, None, kept.device, kept.freq_patches)
        task = Task.of_matrix(torch.from_numpy(table.targets()), True)
        jobs = [HeadJob(kind, HeadConfig(kind), TRAIN) for kind in KINDS] + layer_jobs(config.encoder.depth, TRAIN)
        groups = {kind: [HeadTrainer(job, kept, task)] for kind, job in zip(KINDS, jobs, strict=False)}
        groups["all 5 and 12 blocks"] = [HeadTrainer(job, kept, task) for job in jobs]
        steps: dict[str, list[Times]] = defaultdict(list)
        encoded = []
        for step in range(rounds + 1):
            if step:
                encoded.append(one_step(anew, groups["attentive"], task, rows, step)["features"][0])
            kept.batch(rows)  # brings the file back to mind, of which the encoder has taken the place
            for name, trainers in groups.items():
                steps[name].append(one_step(kept, trainers, task, rows, step))
        size = kept._store.bytes / len(rows) * CLIPS / 1e9  # type: ignore[union-attr]
    encode = float(np.median(encoded))
    print(
        f"{TRAIN.batch_size} clips encoded in {encode:.2f} s ({torch.get_num_threads()} threads, {kept.device}, "
        f"medians of {rounds}); kept features take {size:.1f} GB. Hours are computed from these parts, not run:\n"
    )
    print("| head | fetch, s | step, s | kept, h | plain, h | plain / kept | shared / kept |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, found in steps.items():
        parts = medians(found[1:])  # the first ones warm up
        fetch, step = parts["features"], parts["in all"] - parts["features"]
        once, plain, shared = ways(encode, fetch, step, len(groups[name]))
        print(
            f"| {name} | {fetch:.3f} | {step:.3f} | {once / 3600:.1f} | {plain / 3600:.0f} | {plain / once:.1f} "
            f"| {shared / once:.1f} |"
        )


if __name__ == "__main__":
    arguments = sys.argv[1:]
    main(*map(int, arguments[:1]), *arguments[1:])
