"""How CGP grows with training and with size: a table, a figure, and fitted exponents.

    python benchmarks/scaling.py SCENES.csv OUT --steps RUN@500 RUN@1000 ... --sizes SMALL MIDDLE LARGE

In: labelled clips; checkpoints of one run, and runs of equal length that differ in their size, as `probe --model` takes
them. Each is probed once by CGP with `demo_probe`, into OUT/probe. Out: OUT/scaling.json, scaling.svg and scaling.png.

What is fitted is `1 - mAP = a * x^-b`, x being steps or parameters, by least squares of the logarithms. The interval of
an exponent is that of 1,000 resamples of the test clips, the same ones for all points: it says how sure the exponent is
for these runs, and not how another run would turn out.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

import audiobat
from audiobat.config import ProbeConfig, from_dict
from audiobat.config.recipes import load_recipe
from audiobat.data.sources.read import read_clips
from audiobat.engine.checkpoint import load_checkpoint
from audiobat.engine.tensors import weights_sha256
from audiobat.errors import AudiobatError
from audiobat.evaluation.compare import resample
from audiobat.evaluation.compare_records import read_entries
from audiobat.evaluation.report.paper_tables import parameters as short_count
from audiobat.evaluation.report.style import BLUE, WIDTH, save, styled
from audiobat.zoo.release import locate

RESAMPLES = 1_000


def fit(x, y):
    """Exponents b of `1 - y = a * x^-b` and the factors a, of the rows of y: [points], [R, points] -> [R], [R]."""
    slope, offset = np.polyfit(np.log(x), np.log(1 - np.atleast_2d(y)).T, 1)
    return -slope, np.exp(offset)


def probe(model, scenes, out):
    """The record of CGP for a model and these clips, trained where it is not there yet: its path."""
    # Runs may share a name, as those of nano_trials.py do, and clips a place: contents tell them apart.
    about = (weights_sha256(audiobat.load(model)), read_clips(scenes).sha256())
    folder = out / "probe" / "-".join((Path(model).name, *(digest[:8] for digest in about)))
    if not list(folder.glob("results/*.json")):
        audiobat.probe(model, scenes, from_dict(ProbeConfig, load_recipe("demo_probe")), out=folder)
    return next(folder.glob("results/*.json"))


def points(models, numbers, scenes, out):
    """One axis of the figure: models in the order of x = `numbers`, their mAP with its interval, the exponent."""
    numbers = list(numbers)
    if len(set(numbers)) < 2:
        raise AudiobatError(f"An exponent needs models at two or more places of its axis: there is {numbers}.")
    models, x = zip(*sorted(zip(models, numbers, strict=True), key=lambda pair: pair[1]), strict=True)
    paths = [probe(model, scenes, out) for model in models]
    entries = {entry.path: entry for path in paths for entry in read_entries([path])}
    ordered = [entries[path.resolve()] for path in paths]
    found = resample([[entry] for entry in ordered], "map", RESAMPLES)
    exponent, factor = (float(value[0]) for value in fit(x, [value for value, _ in found]))
    spread, _ = fit(x, np.stack([resampled.numpy() for _, resampled in found], axis=1))
    metrics = [entry.record.metrics["map"] for entry in ordered]
    return {
        "points": [
            {"model": Path(model).name, "x": int(number), "map": metric.value, "low": metric.low, "high": metric.high}
            for model, number, metric in zip(models, x, metrics, strict=True)
        ],
        "exponent": exponent,
        "factor": factor,
        "low": float(np.quantile(spread, 0.025)),
        "high": float(np.quantile(spread, 0.975)),
    }


def parameters(model):
    return sum(p.numel() for p in audiobat.load(model).parameters())


def steps_of(model):
    place = locate(model)
    return place.step or load_checkpoint(place.folder).step


@styled
def figure(found):
    drawn = Figure(figsize=(WIDTH, 3.2))
    for ax, (name, axis) in zip(drawn.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True):
        x = np.array([point["x"] for point in axis["points"]])
        y, low, high = (np.array([point[key] for point in axis["points"]]) for key in ("map", "low", "high"))
        ax.errorbar(x, y, yerr=[y - low, high - y], fmt="o", color=BLUE, capsize=3)
        line = np.geomspace(x[0], x[-1], 100)
        ax.plot(line, 1 - axis["factor"] * line ** -axis["exponent"], color=BLUE)
        ax.set_xscale("log")
        ax.set_xticks(x, [short_count(point["x"]) for point in axis["points"]])
        ax.xaxis.set_minor_locator(NullLocator())
        ax.grid(True)
        fitted = f"exponent {axis['exponent']:.3f} [{axis['low']:.3f}, {axis['high']:.3f}]"
        ax.set(title=f"1 - mAP over {name}\n{fitted}", xlabel=name, ylabel="macro mAP under CGP")
    return drawn


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes")
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", nargs="+", default=[])
    parser.add_argument("--sizes", nargs="+", default=[])
    args = parser.parse_args(words)
    if not (args.steps or args.sizes):
        parser.error("give --steps, --sizes, or both")
    found = {}
    if args.steps:
        found["steps"] = points(args.steps, map(steps_of, args.steps), args.scenes, args.out)
    if args.sizes:
        found["parameters"] = points(args.sizes, map(parameters, args.sizes), args.scenes, args.out)
    (args.out / "scaling.json").write_text(json.dumps(found, indent=1) + "\n")
    save(figure(found), args.out, "scaling")
    for name, axis in found.items():
        for point in axis["points"]:
            interval = f"[{point['low']:.3f}, {point['high']:.3f}]"
            print(f"{point['model']}: {point['x']:,} {name}, mAP {point['map']:.3f} {interval}")
        interval = f"[{axis['low']:.3f}, {axis['high']:.3f}]"
        print(f"1 - mAP falls with {name} to the power of {axis['exponent']:.3f} {interval}")


if __name__ == "__main__":
    try:
        main()
    except AudiobatError as error:
        sys.exit(f"scaling.py: {error}")
