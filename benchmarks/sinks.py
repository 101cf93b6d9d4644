"""Figures 4 and 5 at small scale: which block knows the labels and where attention goes, with gates and without.

    python benchmarks/sinks.py --data scenes/scenes.csv --out OUT LADDER/runs/{1,3,5,7,8}_*

In: finished pre-trainings that differ in gates, decoder and seed: the ladder's rungs 1, 3, 5 and 7, and the last one
without gates. Out: OUT/sinks.md, the paper's claims beside ours with intervals over the runs' seeds; OUT/figures/; and
OUT/RUN/, what `audiobat analyze` finds of a run. It is not computed again: another --config needs another OUT.
"""

import argparse
import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import yaml
from sinks_claims import CNN, EAT, GATED_CNN, GATED_VIT, VIT, Run, write_page

from audiobat import analyze, load
from audiobat.config import ProbeConfig
from audiobat.config.recipes import make_config
from audiobat.engine.checkpoint import load_checkpoint
from audiobat.engine.files import read_json
from audiobat.engine.tensors import weights_sha256
from audiobat.errors import AudiobatError
from audiobat.evaluation.report.collect import collect, load_all
from audiobat.evaluation.report.curves import rhos
from audiobat.probing.analyze.run import read_table

KINDS = {  # frontend.kind, target.source, decoder.kind, encoder.gated_attention -> how tables name the network
    ("kaldi_fbank", "mlp", "cnn", False): EAT,
    ("mel_db", "block", "cnn", False): CNN,
    ("mel_db", "block", "cnn", True): GATED_CNN,
    ("mel_db", "block", "vit", False): VIT,
    ("mel_db", "block", "vit", True): GATED_VIT,
}
CLIPS = 64  # whose attention is measured


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--data", required=True, help="labelled clips, for the probes and for attention")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--config", default="demo_probe", help="how CGP and linear probes are trained")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args(arguments)
    try:
        found: dict[str, dict[int, Path]] = defaultdict(dict)
        for run in args.runs:
            kind, seed, steps = about(run)
            done = checkpoint.step if (checkpoint := load_checkpoint(run)) else 0
            if done < steps:
                print(f"{run} is left out: it is at step {done:,} of {steps:,}")
                continue
            if seed in found[kind]:
                raise AudiobatError(
                    f"{run} and {found[kind][seed]} are both {kind} with seed {seed}: name one of them."
                )
            found[kind][seed] = run
        runs = {
            kind: {seed: measured(run, seed, args) for seed, run in sorted(found[kind].items())}
            for kind in KINDS.values()
            if kind in found
        }
        if not runs:
            raise AudiobatError("No run is trained to its end.")
    except AudiobatError as error:
        parser.error(str(error))
    print(write_page(runs, args.out))


def about(run: Path) -> tuple[str, int, int]:
    """Which of `KINDS` a run is, its seed and its steps."""
    try:
        config = yaml.safe_load((run / "config.yaml").read_text())
    except OSError as error:
        raise AudiobatError(f"{run} is no run folder ({error}): name folders that pretrain wrote.") from None
    fields = (config["frontend"]["kind"], config["target"]["source"], config["decoder"]["kind"])
    kind = KINDS.get((*fields, config["encoder"]["gated_attention"]))
    if kind is None:
        raise AudiobatError(f"{run} is a network of none of the figures: see KINDS in {__file__}.")
    return kind, config["train"]["seed"], config["train"]["steps"]


def measured(run: Path, seed: int, args: argparse.Namespace) -> Run:
    """What `analyze` finds of a run, probed with the run's own seed."""
    config = make_config(ProbeConfig, args.config)
    config = replace(config, seeds=(seed,), grid=replace(config.grid, prototypes=(config.head.prototypes,)))
    table, _ = read_table(args.data, None, CLIPS, config.select, config.labels)
    folder = args.out / run.name
    held = read_json(folder / "analysis.json") if (folder / "analysis.json").exists() else None
    encoder = load(run)
    now = (weights_sha256(encoder), table.sha256())
    if held is None or (held["model"]["sha256"], held["data"]["sha256"]) != now:
        few = {"clips": CLIPS, "views": 0, "pictures": 0}
        held = analyze(run, args.data, config, out=folder, device=args.device, overwrite=True, **few)
    (layers,) = collect(load_all([folder / "results"])).layers
    attention = {
        kind: {name: [100 * statistics.fmean(heads) for heads in blocks] for name, blocks in of.items()}
        for kind, of in held["attention"]["measures"].items()
    }
    return Run(
        [100 * value for value in layers.values[0]],
        rhos(layers)[0],
        attention,
        layers,
        1 + math.prod(encoder.config.grid),
    )


if __name__ == "__main__":
    main()
