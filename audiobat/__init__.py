"""audiobat: pre-train audio transformers by masked latent regression and judge them by convex gated probing."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from audiobat.config.differences import recipes as recipes
    from audiobat.data.describe import describe as describe
    from audiobat.data.prepare.run import prepare as prepare
    from audiobat.evaluation.compare import compare as compare
    from audiobat.evaluation.leaderboard.run import leaderboard as leaderboard
    from audiobat.evaluation.report.run import report as report
    from audiobat.finetuning.run import finetune as finetune
    from audiobat.inference.classify import classify as classify
    from audiobat.inference.embed import embed as embed
    from audiobat.inference.evaluate import evaluate as evaluate
    from audiobat.inference.export import export as export
    from audiobat.inference.library.atlas import atlas as atlas
    from audiobat.inference.library.duplicates import duplicates as duplicates
    from audiobat.inference.library.search import search as search
    from audiobat.inference.predict import predict as predict
    from audiobat.inference.push import push as push
    from audiobat.pretraining.run import pretrain as pretrain
    from audiobat.probing.analyze.run import analyze as analyze
    from audiobat.probing.run import probe as probe
    from audiobat.studies.benchmark import benchmark as benchmark
    from audiobat.studies.demo import demo as demo
    from audiobat.studies.grid import grid as grid
    from audiobat.studies.ladder import ladder as ladder
    from audiobat.studies.suite import suite as suite
    from audiobat.zoo.doctor.run import doctor as doctor
    from audiobat.zoo.load import load as load

__version__ = "0.1.0"
HOMES = {  # the module that defines each public name
    "analyze": "audiobat.probing.analyze.run",
    "atlas": "audiobat.inference.library.atlas",
    "benchmark": "audiobat.studies.benchmark",
    "classify": "audiobat.inference.classify",
    "compare": "audiobat.evaluation.compare",
    "demo": "audiobat.studies.demo",
    "describe": "audiobat.data.describe",
    "doctor": "audiobat.zoo.doctor.run",
    "duplicates": "audiobat.inference.library.duplicates",
    "embed": "audiobat.inference.embed",
    "evaluate": "audiobat.inference.evaluate",
    "export": "audiobat.inference.export",
    "finetune": "audiobat.finetuning.run",
    "grid": "audiobat.studies.grid",
    "ladder": "audiobat.studies.ladder",
    "leaderboard": "audiobat.evaluation.leaderboard.run",
    "load": "audiobat.zoo.load",
    "predict": "audiobat.inference.predict",
    "prepare": "audiobat.data.prepare.run",
    "pretrain": "audiobat.pretraining.run",
    "probe": "audiobat.probing.run",
    "push": "audiobat.inference.push",
    "recipes": "audiobat.config.differences",
    "report": "audiobat.evaluation.report.run",
    "search": "audiobat.inference.library.search",
    "suite": "audiobat.studies.suite",
}
__all__ = ["__version__", *HOMES]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `import audiobat` alone must not wait for torch."""
    if name not in HOMES:
        raise AttributeError(f"module 'audiobat' has no attribute {name!r}")
    return getattr(importlib.import_module(HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
