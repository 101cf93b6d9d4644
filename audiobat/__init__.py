"""audiobat: pre-train audio transformers by masked latent regression and judge them by convex gated probing."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from audiobat.data.prepare.run import prepare
    from audiobat.evaluation.compare import compare
    from audiobat.evaluation.report.run import report
    from audiobat.finetuning.run import finetune
    from audiobat.inference.embed import embed
    from audiobat.inference.export import export
    from audiobat.inference.predict import predict
    from audiobat.inference.push import push
    from audiobat.pretraining.run import pretrain
    from audiobat.probing.analyze.run import analyze
    from audiobat.probing.run import probe
    from audiobat.studies.benchmark import benchmark
    from audiobat.studies.demo import demo
    from audiobat.studies.ladder import ladder
    from audiobat.zoo.doctor.run import doctor
    from audiobat.zoo.load import load

__version__ = "0.1.0"
_HOMES = {  # where each public name is defined
    "analyze": "audiobat.probing.analyze.run",
    "benchmark": "audiobat.studies.benchmark",
    "compare": "audiobat.evaluation.compare",
    "demo": "audiobat.studies.demo",
    "doctor": "audiobat.zoo.doctor.run",
    "embed": "audiobat.inference.embed",
    "export": "audiobat.inference.export",
    "finetune": "audiobat.finetuning.run",
    "ladder": "audiobat.studies.ladder",
    "load": "audiobat.zoo.load",
    "predict": "audiobat.inference.predict",
    "prepare": "audiobat.data.prepare.run",
    "pretrain": "audiobat.pretraining.run",
    "probe": "audiobat.probing.run",
    "push": "audiobat.inference.push",
    "report": "audiobat.evaluation.report.run",
}
__all__ = [
    "__version__",
    "analyze",
    "benchmark",
    "compare",
    "demo",
    "doctor",
    "embed",
    "export",
    "finetune",
    "ladder",
    "load",
    "predict",
    "prepare",
    "pretrain",
    "probe",
    "push",
    "report",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `import audiobat` alone must not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'audiobat' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
