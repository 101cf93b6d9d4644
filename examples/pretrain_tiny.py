"""Pre-train a small encoder without labels, watch its loss, and use it.

    python examples/pretrain_tiny.py                               # the recordings in the package, a minute or two
    python examples/pretrain_tiny.py runs/mine my_recordings/      # yours: no labels needed

Shows `audiobat.pretrain`: a recipe with a few fields changed, the log of a run, and loading what it made. Stop it at
any time and run it again: it goes on where it was.
"""

import json
import sys
from pathlib import Path

import audiobat
from audiobat.config import PretrainConfig, from_dict
from audiobat.config.recipes import load_recipe, merge
from audiobat.data.scenes import demo_folder


def main(out: str | Path = "runs/examples/pretrain", recordings: str | Path | None = None, *, steps: int = 300) -> Path:
    """Pre-train for `steps` steps and print the course of the loss; returns the run folder."""
    recordings = demo_folder() / "unlabelled.csv" if recordings is None else recordings
    changes = {
        "data": {"path": str(recordings)},
        "optim": {"warmup_steps": steps // 10},
        "train": {"steps": steps, "batch_size": 16, "log_every": max(1, steps // 10), "save_every": 100},
    }
    config = from_dict(PretrainConfig, merge(load_recipe("demo"), changes))
    run = audiobat.pretrain(config, out)

    # The targets come from a teacher that learns too, so a loss says something only beside their variance: both falling
    # to zero would be a collapse, where every patch is predicted well because all of them are the same.
    print("step   loss  target variance")
    for line in (run / "metrics.jsonl").read_text().splitlines():
        entry = json.loads(line)
        print(f"{entry['step']:>4} {entry['loss']:6.3f}  {entry['target_variance']:.3f}")

    vector = audiobat.load(run).embed(demo_folder() / "events" / "cattle_00.ogg")
    print(f"a recording is {tuple(vector.shape)} numbers to this encoder")
    return run


if __name__ == "__main__":
    main(*sys.argv[1:])
