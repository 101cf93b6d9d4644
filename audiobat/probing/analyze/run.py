"""`audiobat analyze`: a model and clips in; what its blocks, attention and prototypes do, as numbers and figures, out.

Clips with labels are probed (Fig. 2, 4 and 6 of the paper) and shown with the prototypes that speak for their classes;
all else (Fig. 3 and 5, ranks, CKA, sinks) needs no labels.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from audiobat.config import ProbeConfig
from audiobat.config.presets import task_of
from audiobat.data.clip_table import ClipTable
from audiobat.data.sources.read import read_clips, read_labelled_clips
from audiobat.data.split import Split, splits_of
from audiobat.engine.files import write_atomic
from audiobat.errors import AudiobatError
from audiobat.evaluation.analysis.similarity import FEWEST
from audiobat.evaluation.labels import ClipIds
from audiobat.evaluation.record import without_nan
from audiobat.evaluation.report.curves import sweeps
from audiobat.evaluation.report.record_figures import layer_curves, prototype_curve
from audiobat.evaluation.report.style import save
from audiobat.models.features import Encoder
from audiobat.probing.analyze import measures
from audiobat.probing.analyze.pictures import class_pictures, clip_pictures, measure_pictures
from audiobat.probing.analyze.probes import (
    analysis_config,
    layer_numbers,
    prototype_numbers,
    train_probes,
)
from audiobat.probing.analyze.summary import about, left_out, listed_files, print_summary
from audiobat.probing.one_pass import compute_features, open_model, readable
from audiobat.probing.plan import keep_used, make_plan
from audiobat.probing.training import check_buildable

ATTENTION_CLIPS = 64  # of which maps are formed


def analyze(
    model: str | Path | Encoder,
    data: str | Path,
    config: ProbeConfig | None = None,
    *,
    out: str | Path,
    clips: int = 512,
    views: int = 16,
    pictures: int = 3,
    test_fold: int | None = None,
    device: str = "auto",
    trust_remote_code: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Look into a model, and write `analysis.json`, `figures/` and the probes' records, `results/`, into `out`.

    What memory is too small for is kept in `features/` there, as `probe` does.

    Args:
        model: a release or run folder, shipped weights by name, `hub:OWNER/NAME`, a checkpoint of BAT, EAT, SSLAM,
            Audio-MAE or BEATs, `hf:NAME_OR_FOLDER`, `my_file.py:MyEncoder`, or an encoder object.
        data: clips, as for `probe`: a folder, a CSV or Parquet file with a path column, prepared shards, or NAME:FOLDER
            of a public data set; without labels there are no probes and no prototypes.
        config: how CGP and the blocks' linear probes are trained; sizes of CGP from `grid.prototypes` (else five up to
            `head.prototypes`), spread over `seeds` (else three).
        out: folder to write.
        clips: clips that are measured besides the probes, of the test split where there is one.
        views: views of each clip for LiDAR; fewer than 2: no LiDAR.
        pictures: how many of the best and how many of the worst classes have their prototypes drawn.
        test_fold: the fold to test on, where clips have folds in place of splits; None: the first.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
        trust_remote_code: run the Python files that come with the model, if it has any; read them first.
        overwrite: replace the analysis that `out` holds, an error otherwise.

    Returns:
        What `analysis.json` holds; None stands for what is not defined, such as the rank of zeros.

    Raises:
        AudiobatError: a bad argument, model or data set, more than 5% of the clips unreadable.
    """
    for name, value, least in (("clips", clips, FEWEST), ("views", views, 0), ("pictures", pictures, 0)):
        if value < least:
            raise AudiobatError(f"{name} is {value}: use {least} or more.")
    config, out = analysis_config(config or ProbeConfig()), Path(out)
    old = listed_files(out, overwrite)
    table, split = read_table(data, test_fold, clips)
    name, given = open_model(model, trust_remote_code)
    plan = None
    if split is not None:
        data_name = Path(data).resolve().stem
        plan = make_plan(table, [split], config, given.depth, data_name=data_name, preset_task=task_of(data))
        check_buildable(plan.jobs, given, plan.task.classes)
    out.mkdir(parents=True, exist_ok=True)  # now, as the features may take hours
    source = compute_features(given, table, config, out, device, ("patches", "means"))
    encoder = source.encoder
    looked_at = spread(source.indices if split is None else readable(source, split.test, "test"), clips)
    found = about(name, encoder, table, data, len(looked_at), views)
    found["label_free"] = measures.measure_features(source, looked_at, views)
    found["attention"] = measures.measure_attention(encoder, source, looked_at[:ATTENTION_CLIPS])
    figures = out / "figures"
    files = [*measure_pictures(found, figures), *clip_pictures(encoder, table, looked_at, figures)]
    if plan is not None:
        probes = train_probes(name, given, source, plan, out)
        found["layers"] = layer_numbers(probes.found)
        found["prototype_curve"] = prototype_numbers(probes.found)
        files += [*probes.files, save(layer_curves(probes.found.layers), figures, "layers")]
        if len(config.grid.prototypes) > 1:
            files.append(save(prototype_curve(sweeps(probes.found.rows)), figures, "prototypes"))
        tally = measures.tally_prototypes(source, looked_at, probes.head)
        found["prototypes"] = measures.prototype_use(source, tally, probes.per_class)
        files += class_pictures(encoder, source, probes.head, found["prototypes"]["classes"], pictures, figures)
    found["not_measured"] = left_out(encoder, found)
    found["files"] = sorted(path.relative_to(out).as_posix() for path in files)
    held: dict[str, Any] = without_nan(found)
    write_atomic(out / "analysis.json", json.dumps(held, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    for path in old - set(files):
        for part in path.parent.glob(f"{path.stem}.*"):  # a figure's PNG, a record's scores
            part.unlink()
    print_summary(found)
    print(f"analysis: {out / 'analysis.json'}, figures: {figures}")
    return held


def read_table(data: str | Path, test_fold: int | None, clips: int) -> tuple[ClipTable, Split | None]:
    """The clips in use, and their split; without labels a spread of at most `clips`, and None."""
    table = read_clips(data)
    labelled = table.labels is not None or (Path(data).is_dir() and has_class_folders(table))
    if not labelled:
        return table.select(spread(np.arange(len(table)), clips)), None
    table = read_labelled_clips(data)
    table, (split,) = keep_used(table, splits_of(table, test_fold)[:1])
    return table, split


def has_class_folders(table: ClipTable) -> bool:
    """Whether no clip lies in the folder itself."""
    return all("/" in key for key in table.keys.tolist())


def spread(clip_ids: ClipIds, count: int) -> ClipIds:
    """At most `count` of the ids, evenly over all of them."""
    if len(clip_ids) <= count:
        return clip_ids
    return clip_ids[np.linspace(0, len(clip_ids) - 1, count).round().astype(np.int64)]
