"""`audiobat suite`: many models on many data sets, a probe each, to one table of standings and a leaderboard file.

A model is loaded once and its features of a data set are computed once, whatever the heads and tasks. What is done
stays done, so that a suite that was killed goes on; a pair that fails stops none of the others.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from audiobat.config import LABELS, ProbeConfig, from_dict
from audiobat.config.benchmark import SuiteConfig, SuiteSet
from audiobat.config.presets import fields_for
from audiobat.config.recipes import Recipe, make_config, merge
from audiobat.data.folds import with_folds
from audiobat.data.split import splits_of, test_alone
from audiobat.engine.files import remove
from audiobat.engine.run_folder import check_same, prepare_run, sole_use, unfinished
from audiobat.errors import AudiobatError, did_you_mean
from audiobat.evaluation.leaderboard.board import add_records
from audiobat.evaluation.record import ResultRecord, load_record
from audiobat.evaluation.report.collect import collect
from audiobat.evaluation.report.curves import is_block_probe
from audiobat.evaluation.report.rows import Loaded
from audiobat.evaluation.report.run import write_standings
from audiobat.evaluation.report.standings.places import standings_of
from audiobat.evaluation.report.standings.tables import standings_lines
from audiobat.evaluation.report.verdicts import judge, paired_verdicts
from audiobat.models.features import Encoder
from audiobat.probing.plan import split_text
from audiobat.probing.run import probe_as, read_for_tasks
from audiobat.probing.tasks import trains
from audiobat.studies.beside import terminal_table
from audiobat.studies.runs import (
    absolute,
    attempt,
    check_none_failed,
    check_some_run,
    folder_of,
    named_places,
    print_parts,
)
from audiobat.zoo.load import FETCHED, load_encoder

BOARD = "leaderboard.jsonl"


@dataclass(frozen=True)
class Pair:
    """A model on a data set, with the places of both, None where one is not here, and the probe's settings."""

    model: str
    data: str
    weights: str | None = field(compare=False)
    source: str | None = field(compare=False)
    about: SuiteSet = field(compare=False, repr=False)
    config: ProbeConfig = field(compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.model}, {self.data}"

    @property
    def missing(self) -> str:
        """Which of weights and data have no path, in words; "" if both have one."""
        places = {"no weights": self.weights, "no data": self.source}
        return ", ".join(words for words, path in places.items() if path is None)

    @property
    def arguments(self) -> dict[str, str | int | None]:
        """What defines its run besides the config."""
        return {"model": self.weights, "clips": self.source, "folds": self.about.folds}

    def run(self, out: Path) -> Path:
        """Its run folder below the suite's."""
        return out / "runs" / folder_of(self.model, self.data)

    def records(self, out: Path) -> list[Path]:
        """The records that are there."""
        return sorted(self.run(out).glob("results/*.json"))

    def is_done(self, out: Path) -> bool:
        """Whether its probe has ended."""
        return bool(self.records(out)) and not unfinished(self.run(out))


@dataclass(frozen=True)
class Outcome:
    """A pair with its records, or with the reason why there are none."""

    pair: Pair
    loaded: tuple[Loaded, ...]
    fault: str = ""  # the error's sentence, if it failed

    @property
    def records(self) -> tuple[ResultRecord, ...]:
        """Its records, a head and a seed each."""
        return tuple(record for _, record in self.loaded)


def suite(
    config: SuiteConfig | Recipe | None = None,
    *,
    out: str | Path,
    models: Sequence[str] = (),
    data: Sequence[str] = (),
    only: tuple[str, ...] = (),
    board: str | Path | None = None,
    device: str = "auto",
    trust_remote_code: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
) -> list[Outcome]:
    """Probe every model on every data set, and print who stands where.

    Args:
        config: models, data sets, and the heads, tasks and settings of their probes.
        out: folder to write: runs/MODEL/SET/, tables/, figures/, leaderboard.jsonl.
        models: NAME=PATH of a model, PATH being whatever `probe` takes; a new name is one more model.
        data: NAME=PATH of a data set, PATH being whatever `probe` takes; a new name is one more data set.
        only: run no more than these models and data sets.
        board: the leaderboard file that results are appended to; None: the one in `out`.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
        trust_remote_code: run the Python files that come with the models, if they have any; read them first.
        overwrite: begin anew what `out` holds, of the models and data sets that are asked for.
        dry_run: print what can run and what is missing, and stop.

    Returns:
        An outcome for each model on each data set; none in a dry run.

    Raises:
        AudiobatError: a bad argument, nothing that can run; at the end, if a pair has failed.
    """
    out, known = Path(out), with_places(make_config(SuiteConfig, config), models, data)
    pairs, console = pairs_of(known, only), Console(highlight=False)
    if dry_run:
        print_parts(plan(pairs, out, trust_remote_code), console)
        return []
    check_some_run(pairs, out, "pairs", "what is missing")
    faults = run_all(pairs, out, device, trust_remote_code, overwrite)
    # The table shows all pairs, also those that an earlier command measured.
    outcomes = [outcome_of(pair, out, faults.get(pair, "")) for pair in pairs_of(known)]
    if any(outcome.loaded for outcome in outcomes):
        show(outcomes, out, Path(board) if board is not None else out / BOARD, console)
    failed = {str(outcome.pair): outcome.fault for outcome in outcomes if outcome.fault}
    check_none_failed(failed, len(outcomes), "pairs")
    return outcomes


def with_places(config: SuiteConfig, models: Sequence[str], data: Sequence[str]) -> SuiteConfig:
    """The config with the paths of words NAME=PATH; new names are new models and data sets."""
    sets = dict(config.sets)
    for name, path in named_places("data", data).items():
        sets[name] = replace(sets.get(name, SuiteSet()), path=path)
    return replace(config, models={**config.models, **named_places("models", models)}, sets=sets)


def pairs_of(config: SuiteConfig, only: Sequence[str] = ()) -> list[Pair]:
    """All pairs, model by model: or those of the models and data sets in `only`.

    Raises:
        AudiobatError: no models or no data sets; settings that make no probe; `only` has a name that is none of these.
    """
    groups = [list(config.models), list(config.sets)]
    if not all(groups):
        what = "models" if not groups[0] else "data sets"
        raise AudiobatError(f"The suite has no {what}: name them by --models NAME=PATH, --data NAME=PATH or --config.")
    for name in only:
        if name not in groups[0] + groups[1]:
            hint = did_you_mean(name, groups[0] + groups[1])
            raise AudiobatError(f"--only has {name!r}{hint}: choose from {', '.join(groups[0] + groups[1])}.")
    models, sets = ([name for name in names if name in only] or names for names in groups)
    settings = {name: probe_config(config, name) for name in sets}
    weights = {name: absolute(path) if (path := config.models[name]) else None for name in models}
    sources = {name: absolute_source(path) if (path := config.sets[name].path) else None for name in sets}
    return [Pair(m, s, weights[m], sources[s], config.sets[s], settings[s]) for m in models for s in sets]


def absolute_source(path: str) -> str:
    """A data set's path in full; of NAME:FOLDER the folder."""
    reader, colon, folder = path.partition(":")
    return absolute(path) if Path(path).exists() or not colon else f"{reader}:{absolute(folder)}"


def probe_config(config: SuiteConfig, name: str) -> ProbeConfig:
    """The settings of the probes on a data set: those of the suite, and over them those of the set."""
    about = config.sets[name]
    own = merge(config.probe, about.probe)
    below = fields_for(about.path or "", own.get("preset"), own.get("preset_task"))
    try:
        return from_dict(ProbeConfig, merge(below, own))
    except AudiobatError as error:
        raise AudiobatError(f"The probe of set {name}: {error}") from None


@dataclass
class Model:
    """A model that is loaded when it is first asked for, once; if that fails, the same error comes each time."""

    weights: str
    trust_remote_code: bool
    encoder: Encoder | None = None
    error: AudiobatError | None = None

    def load(self) -> Encoder:
        """The encoder."""
        if self.error is not None:
            raise self.error
        if self.encoder is None:
            try:
                self.encoder = load_encoder(self.weights, trust_remote_code=self.trust_remote_code)
            except AudiobatError as error:
                self.error = error
                raise
        return self.encoder


def run_all(pairs: Sequence[Pair], out: Path, device: str, trust_remote_code: bool, overwrite: bool) -> dict[Pair, str]:
    """Run what is not done, model by model; returns the sentences of the pairs that failed."""
    faults: dict[Pair, str] = {}
    number = 0
    for _, group in groupby(pairs, key=lambda pair: pair.weights):
        model: Model | None = None  # of these pairs: the one before it is let go
        for pair in group:
            number += 1
            if pair.weights is None or pair.source is None:
                print(f"[{number} of {len(pairs)}] {pair}: {pair.missing}", flush=True)
                continue
            model = model or Model(pair.weights, trust_remote_code)
            done = pair.is_done(out) and not overwrite
            print(f"[{number} of {len(pairs)}] {pair}: {'done' if done else 'probe'}", flush=True)
            work = (
                partial(check_settings, pair, out) if done else partial(run_pair, pair, model, out, device, overwrite)
            )
            if fault := attempt(work, pair.run(out)):
                faults[pair] = fault
                print(f"failed: {pair}: {fault}", flush=True)
    return faults


def check_settings(pair: Pair, out: Path) -> None:
    """Raise an AudiobatError if a pair was done with other settings, weights or clips."""
    check_same(pair.run(out) / "config.yaml", pair.config, pair.arguments)


def run_pair(pair: Pair, model: Model, out: Path, device: str, overwrite: bool) -> None:
    """Probe a model on a data set; a probe that was stopped goes on."""
    folder, encoder = pair.run(out), model.load()
    with sole_use(folder):
        prepare_run(folder, pair.config, "auto", overwrite, pair.arguments)
        records = probe_as(
            pair.model,
            pair.data,
            encoder,
            str(pair.source),
            pair.config,
            out=folder,
            folds=pair.about.folds,
            device=device,
        )
        remove(folder / "features")  # up to 64 GB that no later run reads
    check_metric(pair, records)


def check_metric(pair: Pair, records: Sequence[ResultRecord]) -> None:
    """Raise an AudiobatError if none of a pair's records has the metric by which models are to be ranked."""
    metric, known = pair.about.metric, list(dict.fromkeys(name for record in records for name in record.metrics))
    if metric is not None and metric not in known:
        hint = did_you_mean(metric, known)
        raise AudiobatError(f"sets.{pair.data}.metric is {metric!r}{hint}: choose from {', '.join(known)}.")


def outcome_of(pair: Pair, out: Path, fault: str) -> Outcome:
    """The records of a pair, or why there are none; records without the metric that was asked for are a failure."""
    try:
        if not fault and pair.is_done(out):
            loaded = tuple((path, load_record(path)) for path in pair.records(out))
            check_metric(pair, [record for _, record in loaded])
            return Outcome(pair, loaded)
    except AudiobatError as error:
        fault = str(error)
    return Outcome(pair, (), fault)


def show(outcomes: Sequence[Outcome], out: Path, board: Path, console: Console) -> None:
    """Print every value and the standings, write their tables and figure, and append the results to the leaderboard."""
    heads = [(o.pair, path, record) for o in outcomes for path, record in o.loaded if not is_block_probe(record)]
    metrics = {
        (pair.data, record.head["kind"]): pair.about.metric
        for pair, _, record in heads
        if pair.about.metric in record.metrics
    }
    found = collect([(path, record) for _, path, record in heads], metrics)
    try:
        verdicts = judge(found.rows, paired_verdicts(found.rows))
    except AudiobatError as error:  # a model could not read a clip that the others could
        print(f"! {error} Wins are where intervals do not overlap.", file=sys.stderr)
        verdicts = judge(found.rows, {})
    standings = standings_of(found.rows, verdicts)
    print_parts(standings_lines(found.rows, standings), console)
    write_standings(standings, found, out)
    results = [(r, metrics.get((pair.data, r.head["kind"]), r.main_metric)) for pair, _, r in heads]
    new = add_records(board, results)
    measured = sum(bool(outcome.loaded) for outcome in outcomes)
    print(f"{measured} of {len(outcomes)} pairs measured")
    print(f"leaderboard: {board}, {new} of {len(results)} results are new")
    if standings is not None:
        page = f"leaderboard {board}" if metrics else f"report {out / 'runs'}"  # a report ranks by main metrics
        print(f"standings: {out / 'tables' / 'standings.md'}; the page: audiobat {page} --out DIR")


def plan(pairs: Sequence[Pair], out: Path, trust_remote_code: bool) -> Iterator[Table | Text | str]:
    """The tables of a dry run, and errors as `Text`; what would have to come over the net is left alone."""
    clips, faults = dict[str, str](), dict[str, str]()
    for name, pair in {pair.data: pair for pair in pairs if pair.source is not None}.items():
        try:
            table = with_folds(read_for_tasks(str(pair.source), pair.config), pair.about.folds)
            splits = splits_of(table, None) if trains(pair.config) else [test_alone(table, None)]
            clips[name] = split_text(table, splits)
        except AudiobatError as error:
            faults[name] = str(error)
    for name, pair in {pair.model: pair for pair in pairs if pair.weights is not None}.items():
        if not str(pair.weights).startswith(FETCHED):
            try:
                load_encoder(str(pair.weights), trust_remote_code=trust_remote_code)
            except AudiobatError as error:
                faults[name] = str(error)
    states = {pair: state_of(pair, faults, out) for pair in pairs}
    lines = [(p.model, p.data, ", ".join(kinds_of(p.config)), state) for p, state in states.items()]
    yield terminal_table("Pairs", ("Model", "Data", "Heads, tasks", "State"), lines, text=range(4), group=0)
    yield from (Text(f"{name}: {split}") for name, split in clips.items())
    yield from (Text(f"! {name}: {fault}") for name, fault in faults.items())
    counted = [list(states.values()).count(state) for state in ("can run", "done")]
    yield f"{counted[0]} of {len(pairs)} pairs can run, {counted[1]} are done."


def kinds_of(config: ProbeConfig) -> list[str]:
    """What is measured: heads, if any learns labels, and the other tasks."""
    heads = config.heads or (config.head.kind,)
    return [kind for task in config.tasks for kind in (heads if task == LABELS else (task,))]


def state_of(pair: Pair, faults: Mapping[str, str], out: Path) -> str:
    """`done`, `can run`, or what is in the way."""
    if pair.is_done(out):
        return "done"
    broken = [what for what, name in (("weights", pair.model), ("data", pair.data)) if name in faults]
    return pair.missing or (f"{' and '.join(broken)} unreadable" if broken else "can run")
