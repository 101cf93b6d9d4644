"""What does a look of the online probes cost, in steps of the run that they watch? `python benchmarks/online.py`

CPU seconds of one process, on the demo's recordings: steps of `bat_nano` with and without looks at its encoder.
"""

import tempfile
from pathlib import Path
from time import process_time

import torch

from audiobat.config import OnlineConfig, PretrainConfig, from_dict
from audiobat.config.recipes import load_recipe, merge
from audiobat.data.scenes import demo_folder
from audiobat.engine.ranks import Ranks
from audiobat.pretraining.run import pretrain
from audiobat.probing.online import OnlineProbe
from audiobat.zoo.load import load_encoder

FEW, MORE = 4, 24  # steps of two runs, whose difference is that of so many steps


def seconds_of_run(folder: Path, steps: int) -> float:
    changes = {
        "data": {"path": str(demo_folder() / "unlabelled"), "workers": 0},
        "train": {"steps": steps, "device": "cpu", "precision": "fp32"},
        "optim": {"warmup_steps": 1},
    }
    start = process_time()
    pretrain(from_dict(PretrainConfig, merge(load_recipe("bat_nano"), changes)), folder / str(steps))
    return process_time() - start


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        step = (seconds_of_run(Path(folder), MORE) - seconds_of_run(Path(folder), FEW)) / (MORE - FEW)
    every = OnlineConfig().every
    for heads in (("knn",), ("knn", "cgp")):
        config = OnlineConfig(data=str(demo_folder() / "events.csv"), heads=heads)
        probe = OnlineProbe(config, load_encoder("bat_nano"), every, Ranks(torch.device("cpu")))
        start = process_time()
        found = probe(every)
        look = process_time() - start
        share = look / (look + every * step)
        print(f"{', '.join(heads)}, {len(probe.train)} and {len(probe.test)} clips: {found}")
        print(f"{look:.1f} s, as {look / step:.0f} steps of {step:.3f} s; {share:.1%} at one look in {every:,} steps")


if __name__ == "__main__":
    main()
