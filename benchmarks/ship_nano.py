"""Turn a finished bat_nano run into the release that the package carries: python benchmarks/ship_nano.py RUN

Writes audiobat/zoo/weights/bat_nano: config.json, model.safetensors, README.md (the card) and record.json (recipe,
clips, hours, steps, seed, curves). The run is `audiobat pretrain --config bat_nano --data OUT/clips.csv` on the clips
that benchmarks/nano_corpus.py writes.
"""

import csv
import json
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import yaml

from audiobat.engine.checkpoint import load_checkpoint
from audiobat.engine.tensors import weights_sha256
from audiobat.zoo.release import load, save_release

FOLDER = Path(__file__).parents[1] / "audiobat" / "zoo" / "weights" / "bat_nano"
CURVES = 160  # rows kept of the log
KINDS = {"mix": "mixes of short sounds over a long recording", "row": "rows of short sounds", "long": "long recordings"}


def main(run: Path) -> None:
    encoder = load(run)
    config = yaml.safe_load((run / "config.yaml").read_text())
    clips = read_rows(Path(config["data"]["path"]))
    left_out = read_rows(Path(config["data"]["path"]).with_name("left_out.csv"))
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    config["data"]["path"] = "clips.csv"  # of benchmarks/nano_corpus.py; the path is one machine's own
    steps = load_checkpoint(run).step
    seconds = sum(float(clip["seconds"]) for clip in clips)
    record = {
        "recipe": "bat_nano",
        "config": config,
        "seed": config["train"]["seed"],
        "steps": steps,
        "clips": len(clips),
        "hours": seconds / 3600,
        "kinds": Counter(clip["kind"] for clip in clips),
        "left_out": Counter(row["reason"].split(" by ")[0] for row in left_out),
        "clips_seen": steps * config["train"]["batch_size"],
        "hours_seen": steps * config["train"]["batch_size"] * config["data"]["clip_seconds"] / 3600,
        "wall_seconds": sum_of_legs(rows),
        "environment": json.loads((run / "env.json").read_text()),
        "weights_sha256": weights_sha256(encoder),
        "curves": rows[:: max(1, len(rows) // CURVES)],
    }
    save_release(FOLDER, encoder, card=card(record, encoder))
    (FOLDER / "record.json").write_text(json.dumps(record, indent=1) + "\n")
    print(f"{FOLDER}: {sum(p.stat().st_size for p in FOLDER.iterdir()) / 1e6:.1f} MB")


def read_rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def sum_of_legs(rows):
    """Seconds of training: each resumed leg counts from zero."""
    ends = [a["seconds"] for a, b in pairwise(rows) if b["seconds"] < a["seconds"]]
    return sum(ends) + rows[-1]["seconds"]


def card(record, encoder):
    left_out = "; ".join(f"{count} recordings ({reason})" for reason, count in record["left_out"].items())
    kinds = ", ".join(f"{count:,} {KINDS[kind]}" for kind, count in record["kinds"].items())
    parameters = sum(p.numel() for p in encoder.parameters())
    return f"""---
library_name: audiobat
license: mit
tags: [audio, self-supervised-learning]
---

# bat_nano

An audio encoder trained without labels by masked latent regression, as *BAT: Better Audio Transformer Guided by Convex
Gated Probing* describes it, at a size that two CPU cores can pre-train: {parameters / 1e6:.2f}M parameters, {encoder.depth} gated post-norm blocks of {encoder.dim}
dimensions.

```python
import audiobat

model = audiobat.load("bat_nano")
vector = model.embed("recording.wav")  # [{encoder.dim}]
```

- **Input**: mono at {encoder.sample_rate:,} Hz, so nothing above {encoder.sample_rate // 2:,} Hz; 64 mel bins in dB within 80 dB of the
  clip's maximum, min-max per clip, a frame every 20 ms; patches of 16 x 16. Up to 4.16 s at once; longer clips run in
  windows.
- **Trained on**: {record["clips"]:,} clips, {record["hours"]:.1f} hours, that `benchmarks/nano_corpus.py` lays out of recordings in Debian
  packages (game sounds and ambience, music, speech, drums), without any label:
  {kinds}.
- **Left out**, so that the demo's test scenes stay unheard:
  {left_out}.
- **How**: recipe `bat_nano`, {record["steps"]:,} steps of 32 clips x 4 clones, seed {record["seed"]}, {record["wall_seconds"] / 60:.0f} minutes on two CPU
  cores that did other work too. `record.json` has every field, the versions and the curves; `benchmarks/README.md` has
  what else was tried and the measured probes.
- **Limits**: trained for a demonstration. It knows a game's sounds best; do not expect more of it elsewhere.
- **Licence**: the weights are MIT. The recordings have their packages' licences (GPL, CC BY-SA, CC0 and others).

sha256 of the weights: `{record["weights_sha256"]}`
"""  # noqa: E501


if __name__ == "__main__":
    main(Path(sys.argv[1]))
