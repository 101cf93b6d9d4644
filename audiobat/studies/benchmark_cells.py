"""A benchmark's config to its cells: one model on one data set by one protocol, with settings, runs and records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from audiobat.config import FinetuneConfig, ProbeConfig, from_dict
from audiobat.config.benchmark import FINETUNE, PROTOCOLS, BenchmarkConfig, BenchmarkData, BenchmarkModel
from audiobat.config.presets import preset_fields
from audiobat.config.recipes import load_recipe, merge
from audiobat.data.shards import is_prepared
from audiobat.data.sources.catalog import data_sets
from audiobat.engine.run_folder import unfinished
from audiobat.errors import AudiobatError, did_you_mean
from audiobat.studies.runs import absolute, folder_of, named_places


@dataclass(frozen=True)
class Cell:
    """One model on one data set by one protocol."""

    model: str
    data: str
    protocol: str
    config: BenchmarkConfig = field(compare=False, repr=False)
    about_model: BenchmarkModel = field(compare=False, repr=False)
    about_data: BenchmarkData = field(compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.model}, {self.data}, {self.protocol}"

    @property
    def recipe(self) -> str:
        """The recipe by which the model is fine-tuned: its own, else that of the data set."""
        return self.about_model.recipes.get(self.data, self.about_data.recipe)

    @property
    def settings(self) -> str:
        """Where its settings come from, in words."""
        return self.recipe if self.protocol == FINETUNE else f"preset {self.config.preset}, {self.about_data.task}"

    @property
    def paper(self) -> tuple[float | None, ...]:
        """The paper's number for each metric, in percent; None where it has none."""
        found = self.config.paper.get(self.model, {}).get(self.data, {}).get(self.protocol, ())
        return tuple(found[i] if i < len(found) else None for i in range(len(self.about_data.metrics)))

    @property
    def missing(self) -> str:
        """Which of weights and data have no path, in words; "" if both have one."""
        paths = {"no weights": self.about_model.path, "no data": self.about_data.path}
        return ", ".join(words for words, path in paths.items() if path is None)

    @property
    def weights(self) -> str:
        """Its model as `--model` takes it."""
        return absolute(str(self.about_model.path))

    @property
    def source(self) -> str:
        """Its clips as `--data` takes them: a folder gets the reader of the data set, unless the path names one."""
        path = str(self.about_data.path)
        reader, colon, folder = path.partition(":")
        if colon and reader in data_sets():
            return f"{reader}:{absolute(folder)}"
        unpacked = Path(path).is_dir() and not is_prepared(path)
        return f"{self.about_data.reader}:{absolute(path)}" if unpacked else absolute(path)

    def probe_config(self) -> ProbeConfig:
        """The preset's settings for its head."""
        fields = merge(preset_fields(self.config.preset, self.about_data.task), self.config.probe)
        head = PROTOCOLS[self.protocol]
        built = replace(from_dict(ProbeConfig, fields, "probe").of_kind(head), heads=(head,))
        return replace(built, seeds=self.config.seeds) if self.config.seeds else built

    def finetune_config(self) -> FinetuneConfig:
        """The recipe's settings."""
        return from_dict(FinetuneConfig, merge(load_recipe(self.recipe), self.config.finetune), "finetune")

    def seeds(self) -> tuple[int, ...]:
        """Seeds of its records."""
        if self.protocol == FINETUNE:
            return self.config.seeds or (self.finetune_config().train.seed,)
        config = self.probe_config()
        return config.seeds or (config.train.seed,)

    def run(self, out: Path, seed: int | None = None) -> Path:
        """Its run folder below the benchmark's; of fine-tuning, that of one seed, as a probe has all seeds in one."""
        own = [f"seed{seed}"] if self.protocol == FINETUNE and seed is not None else []
        return out / "runs" / folder_of(self.model, self.data, self.protocol, *own)

    def records(self, out: Path) -> list[Path]:
        """The records of its seeds that are there; their names begin with that of the weights, whatever it is."""
        head = PROTOCOLS[self.protocol]
        if self.protocol == FINETUNE:
            head = f"finetune_{self.finetune_config().select.which}"
        found = [sorted(self.run(out, seed).glob(f"results/*_{head}_{seed}.json")) for seed in self.seeds()]
        return [path for paths in found for path in paths]

    def is_done(self, out: Path) -> bool:
        """Whether all of its records are there, and the probe that made them was not stopped behind them."""
        return len(self.records(out)) == len(self.seeds()) and not unfinished(self.run(out))


def cells_of(config: BenchmarkConfig, only: Sequence[str] = ()) -> list[Cell]:
    """The cells by data set, protocol and model: all, or those of the models, data sets and protocols in `only`.

    Raises:
        AudiobatError: a config without cells; `only` has a name that is none of these.
    """
    groups = [list(config.models), list(config.data), list(config.protocols)]
    if not all(groups):
        raise AudiobatError(
            "There are no cells: give --config benchmark/table1, benchmark/table5, or a file of your own."
        )
    known = [name for names in groups for name in names]
    for name in only:
        if name not in known:
            raise AudiobatError(f"--only has {name!r}{did_you_mean(name, known)}: choose from {', '.join(known)}.")
    models, data, protocols = ([name for name in names if name in only] or names for names in groups)
    return [Cell(m, d, p, config, config.models[m], config.data[d]) for d in data for p in protocols for m in models]


def with_paths(config: BenchmarkConfig, models: Sequence[str] = (), data: Sequence[str] = ()) -> BenchmarkConfig:
    """The config with the paths of words NAME=PATH; a model of a new name is a new line of the table.

    Raises:
        AudiobatError: a word without =, a name twice, or a data set that the config does not have.
    """
    places: dict[str, dict[str, Any]] = {"models": dict(config.models), "data": dict(config.data)}
    for flag, words in (("models", models), ("data", data)):
        for name, path in named_places(flag, words).items():
            if flag == "data" and name not in config.data:
                hint = did_you_mean(name, config.data)
                raise AudiobatError(f"--data has {name!r}{hint}: the benchmark has {', '.join(config.data)}.")
            places[flag][name] = replace(places[flag].get(name, BenchmarkModel()), path=path)
    return replace(config, models=places["models"], data=places["data"])
