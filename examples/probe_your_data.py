"""Probe frozen features on labelled clips: what does a model know about your classes, and where does it keep it?

    python examples/probe_your_data.py                            # the demo's scenes: about a minute
    python examples/probe_your_data.py runs/mine my_clips.csv     # yours: columns path, label, and split or fold

Shows `audiobat.probe` with two heads on one pass over the audio, what a result record holds, and a paired comparison.
"""

import sys
from pathlib import Path

import audiobat
from audiobat.config import ProbeConfig, from_dict
from audiobat.config.recipes import load_recipe, merge
from audiobat.data.scenes import write_scenes
from audiobat.evaluation.compare import compare
from audiobat.evaluation.record import ResultRecord


def main(
    out: str | Path = "runs/examples/probe", clips: str | Path | None = None, *, steps: int = 500, scenes: int = 400
) -> list[ResultRecord]:
    """Train a CGP and a linear probe on `clips` and print what their records say."""
    out = Path(out)
    if clips is None:
        clips = write_scenes(out / "scenes", clips_train=scenes, clips_test=scenes // 4)

    # The defaults are the paper's and want a GPU; the recipe wants a laptop.
    changes = {"heads": ["cgp", "linear"], "train": {"steps": steps, "warmup_steps": steps // 10}}
    config = from_dict(ProbeConfig, merge(load_recipe("demo_probe"), changes))
    records = audiobat.probe("bat_nano", clips, config, out=out, overwrite=True)

    cgp = records[0]
    shares = ", ".join(f"block {block}: {weight:.2f}" for block, weight in enumerate(cgp.gate_weights or [], start=1))
    print(f"CGP read {shares}")

    heard = {label: value for label, value in cgp.per_class.items() if value is not None}  # None: no test clip has it
    ranked = sorted(heard, key=heard.__getitem__, reverse=True)
    print("best: ", ", ".join(f"{label} {heard[label]:.2f}" for label in ranked[:4]))
    print("worst:", ", ".join(f"{label} {heard[label]:.2f}" for label in ranked[-4:]))

    # Both heads were tested on the same clips: resample those, not the two intervals.
    compare([out / "results"], samples=2_000)
    return records


if __name__ == "__main__":
    main(*sys.argv[1:])
