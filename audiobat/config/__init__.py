"""Every setting of the project as frozen dataclasses; every ablation of the paper is one field, checked on creation.

Defaults are the paper's (Table 6); where the paper is silent, its authors' release decides. A default that comes from
neither says so.

    checks.py       what every check is made of
    user_files.py   a user's own Python files: their classes, hashes and copies
    own_fields.py   the fields of a user's own Config: permitted types and defaults
    registry.py     what can be replaced: the kinds of frontend, decoder, ..., built in or a user's own
    plain.py        configs to nested dicts and back
    field_help.py   the captions of classes, and the help of a field: the comment beside it
    frontend.py     waveform to spectrogram
    model.py        the encoder
    training.py     optimiser, clips, length, which weights are kept
    augment.py      augmentation
    probe.py        heads and their training
    finetune.py     fine-tuning
    pretrain.py     masks, decoder, targets, loss
    recipes/        YAML files by name
    presets.py      the settings of published probes, by preset and task
    rungs.py        the ladder of Tables 2 to 4
    benchmark.py    the cells of Tables 1 and 5
    sources.py      the values of a recipe, and where each comes from: the comments in YAML files and in classes
    differences.py  recipes listed, shown and compared, each value with its source
"""

from audiobat.config.augment import AugmentConfig, MixupConfig, NoiseConfig, SpecAugmentConfig
from audiobat.config.checks import LARGEST, check, check_choice, check_one_of, warmup_hint
from audiobat.config.finetune import FinetuneConfig, FinetuneOptimConfig, FinetuneTrainConfig
from audiobat.config.frontend import (
    FRONTEND_OWN,
    STATISTICS,
    FrontendConfig,
    KaldiFrontendConfig,
    PrepareConfig,
    Statistics,
    StatisticsConfig,
    pick_statistics,
)
from audiobat.config.model import EncoderConfig, ModelConfig
from audiobat.config.plain import flatten, from_dict, to_dict
from audiobat.config.pretrain import (
    DecoderConfig,
    MaskConfig,
    ObjectiveConfig,
    OnlineConfig,
    PretrainConfig,
    TargetConfig,
)
from audiobat.config.probe import (
    LABELS,
    GridConfig,
    HeadConfig,
    ProbeConfig,
    ProbeTrainConfig,
    TaggerConfig,
    TaskConfig,
)
from audiobat.config.training import DataConfig, LabelConfig, OptimConfig, SelectConfig, TrainConfig

__all__ = [
    "FRONTEND_OWN",
    "LABELS",
    "LARGEST",
    "STATISTICS",
    "AugmentConfig",
    "DataConfig",
    "DecoderConfig",
    "EncoderConfig",
    "FinetuneConfig",
    "FinetuneOptimConfig",
    "FinetuneTrainConfig",
    "FrontendConfig",
    "GridConfig",
    "HeadConfig",
    "KaldiFrontendConfig",
    "LabelConfig",
    "MaskConfig",
    "MixupConfig",
    "ModelConfig",
    "NoiseConfig",
    "ObjectiveConfig",
    "OnlineConfig",
    "OptimConfig",
    "PrepareConfig",
    "PretrainConfig",
    "ProbeConfig",
    "ProbeTrainConfig",
    "SelectConfig",
    "SpecAugmentConfig",
    "Statistics",
    "StatisticsConfig",
    "TaggerConfig",
    "TargetConfig",
    "TaskConfig",
    "TrainConfig",
    "check",
    "check_choice",
    "check_one_of",
    "flatten",
    "from_dict",
    "pick_statistics",
    "to_dict",
    "warmup_hint",
]
