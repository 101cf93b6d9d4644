"""Presets are Table 6, the release and `fair`, to the number; a record names one only if it was followed."""

from dataclasses import replace

import pytest

from audiobat.cli import command as cli
from audiobat.config import ProbeConfig, SelectConfig, from_dict
from audiobat.config.presets import preset_fields, task_of
from audiobat.errors import AudiobatError
from audiobat.probing.jobs import decay_of, head_jobs, passes, preset_of, with_seeds


def config_of(preset: str, task: str) -> ProbeConfig:
    return from_dict(ProbeConfig, preset_fields(preset, task))


@pytest.mark.parametrize(
    ("task", "steps", "warmup", "batch", "loss"),
    [
        ("as2m", 200_000, 2_000, 96, "bce"),
        ("as20k", 20_000, 2_000, 48, "bce"),
        ("esc50", 4_000, 400, 48, "ce"),
        ("spc2", 40_000, 4_000, 256, "bce"),
    ],
)
def test_paper_is_table_6(task: str, steps: int, warmup: int, batch: int, loss: str):
    config = replace(config_of("paper", task), heads=("cgp", "protobin", "linear"))
    train = config.train
    assert (train.steps, train.warmup_steps, train.batch_size, train.loss) == (steps, warmup, batch, loss)
    assert (train.lr, train.min_lr, train.betas) == (1e-3, 1e-6, (0.9, 0.999))
    assert (config.head.prototypes, config.head.dropout, config.head.norm) == (10_000, 0.0, "none")
    assert [decay_of(job.head, job.train) for job in head_jobs(config, 12)] == [0.5, 0.5, 0.005]


def test_the_release_differs_where_its_files_do():
    expected = {  # steps, warm-up, batch, loss, decay, dropout; statistics, frames of a window
        "as20k": ((20_000, 500, 48, "asl", 0.05, 0.2), "audioset", None),
        "esc50": ((4_000, 400, 48, "ce", 0.2, 0.2), "esc50", 512),
        "spc2": ((10_000, 1_000, 256, "ce", 0.05, 0.2), "speech_commands", 112),
        "birdset": ((10_000, 1_000, 64, "bce", 0.05, 0.2), "birdset", 512),
        "dcase2016": ((10_000, 1_000, 16, "bce", 0.05, 0.0), "dcase2016", None),
    }
    cgp = expected | {"dcase2016": ((4_000, 400, 4, "bce", 0.05, 0.2), "dcase2016", None)}
    for kind, rows in {"cgp": cgp, "protobin": expected, "linear": expected}.items():
        for task, (wanted, statistics, frames) in rows.items():
            config = config_of("released", task)
            [job] = head_jobs(replace(config, heads=(kind,)), 12)
            numbers = ("steps", "warmup_steps", "batch_size", "loss", "weight_decay")
            assert (*(getattr(job.train, name) for name in numbers), job.head.dropout) == wanted, (kind, task)
            assert (config.frontend.statistics, config.max_frames) == (f"{statistics}_released", frames)
            assert preset_of(job, job.train.loss, config, task) == "released"
            assert (job.train.warmup, job.train.roll) == ("floored", task == "as20k")
            assert config.frontend.pad_seconds == (10.23 if task == "as20k" else 0)
            assert config.select.which == ("best" if task in ("spc2", "dcase2016") else "last")
    for preset in ("paper", "fair"):
        config = config_of(preset, "esc50")
        assert (config.frontend.mean, config.max_frames) == (None, None)
        assert (config.train.warmup, config.train.roll, config.select.which) == ("linear", False, "last")
    [lasso] = head_jobs(replace(config_of("released", "as20k"), heads=("head2toe",)), 12)
    assert lasso.head.penalty == 0
    [free] = head_jobs(replace(config_of("released", "esc50"), heads=("head2toe",)), 12)
    assert free.head.penalty is None  # Head2Toe's own, 1e-4


def test_settings_of_one_kind_are_that_kinds_alone():
    config = config_of("released", "dcase2016")
    jobs = {job.name: job for job in head_jobs(replace(config, heads=("cgp", "linear", "knn"), layers=True), 2)}
    assert {name: (job.train.batch_size, job.head.dropout) for name, job in jobs.items()} == {
        "cgp": (4, 0.2),
        "linear": (16, 0.0),
        "knn": (16, 0.0),
        "linear_block_1": (16, 0.0),
        "linear_block_2": (16, 0.0),
    }
    assert passes(list(jobs.values())) == [[0], [1, 3, 4]]


@pytest.mark.parametrize(
    ("flags", "batches", "dropouts"),
    [
        ("", (4, 16), (0.2, 0.0)),
        ("--train.batch_size 8", (8, 8), (0.2, 0.0)),
        ("--train.batch_size 16", (16, 16), (0.2, 0.0)),
        ("--head.dropout 0.5 --train.lr 1e-2", (4, 16), (0.5, 0.5)),
    ],
)
@pytest.mark.parametrize("preset", ["--preset released --preset-task dcase2016", "--config probe/released/dcase2016"])
def test_what_is_said_of_all_heads_holds_for_each_kind(preset: str, flags: str, batches: tuple, dropouts: tuple):
    words = f"--model m --data d --out o --heads cgp,linear {preset} {flags}"
    config = cli.parse("probe", words.split())["config"]
    jobs = head_jobs(config, 12)
    assert tuple(job.train.batch_size for job in jobs) == batches
    assert tuple(job.head.dropout for job in jobs) == dropouts
    changed = ["custom" if flags else "released"] * 2
    if flags == "--train.batch_size 16":
        changed[1] = "released"  # what it is anyway
    assert [preset_of(job, "bce", config, "as20k") for job in jobs] == changed


@pytest.mark.parametrize(
    ("by_kind", "words"),
    [
        ({"cpg": {}}, r"by_kind is 'cpg'.*did you mean cgp"),
        ({"cgp": {"trian": {}}}, r"by_kind\.cgp is .*: give fields of head and of train"),
        ({"cgp": {"train": 5}}, r"by_kind\.cgp is .*: give fields of head and of train"),
        ({"cgp": 5}, r"by_kind\.cgp is 5"),
        ({"cgp": {"train": {"stpes": 5}}}, r"Unknown field by_kind\.cgp\.train\.stpes \(did you mean steps"),
        ({"cgp": {"head": {"dropout": 2.0}}}, r"head\.dropout is 2\.0"),
        ({"cgp": {"head": {"dropout": "a"}}}, r"by_kind\.cgp\.head\.dropout is 'a': it must be of type float"),
        ({"cgp": {"head": {"kind": "linear"}}}, r"by_kind\.cgp\.head\.kind"),
    ],
)
def test_settings_of_a_kind_that_cannot_be_are_refused(by_kind: dict, words: str):
    with pytest.raises(AudiobatError, match=words):
        from_dict(ProbeConfig, {"by_kind": by_kind})


def test_fair_chooses_rate_and_decay_and_has_five_seeds():
    config = config_of("fair", "esc50")
    paper = config_of("paper", "esc50")
    assert config.grid.choose
    assert len(config.seeds) == 5
    assert (config.train, config.head) == (paper.train, paper.head)
    assert paper.train.lr in config.grid.lr
    assert {0.5, 0.005} <= set(config.grid.weight_decay)
    assert config_of("fair", "birdset").train.loss == "bce"  # of the release, as the paper has no such task


@pytest.mark.parametrize(
    ("preset", "task", "words"),
    [
        ("papre", "esc50", r"preset is 'papre'.*did you mean paper"),
        ("paper", "esc5", r"Preset paper has no task 'esc5'.*did you mean esc50"),
        ("paper", "birdset", "Preset paper has no task 'birdset'.*set preset_task to as20k, as2m, esc50, spc2"),
        ("released", "as2m", "Preset released has no task 'as2m'"),
    ],
)
def test_what_there_is_not_is_refused(preset: str, task: str, words: str):
    with pytest.raises(AudiobatError, match=words):
        preset_fields(preset, task)


@pytest.mark.parametrize(
    ("source", "task"),
    [
        ("esc50:/data/ESC-50", "esc50"),
        ("audioset:/data", "as2m"),
        ("audioset-20k:/data", "as20k"),
        ("birdset-hsn:/data", "birdset"),
        ("/data/esc50", "as20k"),
        ("clips.csv", "as20k"),
    ],
)
def test_a_public_data_set_names_its_task(source: str, task: str):
    assert task_of(source) == task


@pytest.mark.parametrize("preset", ["paper", "released"])
def test_a_record_names_a_preset_only_if_it_was_followed(preset: str):
    config = config_of(preset, "esc50")
    [job] = head_jobs(config, 12)
    assert preset_of(job, "ce", config, "esc50") == preset
    assert preset_of(replace(job, train=replace(job.train, seed=9)), "ce", config, "esc50") == preset
    changes = [
        replace(job, train=replace(job.train, lr=2e-3)),
        replace(job, train=replace(job.train, steps=4_001)),
        replace(job, train=replace(job.train, weight_decay=0.1)),
        replace(job, head=replace(job.head, prototypes=9_999)),
        replace(job, head=replace(job.head, dropout=0.1)),
    ]
    assert [preset_of(one, "ce", config, "esc50") for one in changes] == ["custom"] * 5
    assert preset_of(job, "bce", config, "esc50") == "custom"
    other = replace(config, select=SelectConfig("best"))
    assert preset_of(job, "ce", other, "esc50") == "custom"


def test_decay_of_null_is_that_of_the_kind():
    """Writing out the decay that null means changes nothing."""
    config = config_of("paper", "esc50")
    [job] = head_jobs(config, 12)
    assert preset_of(replace(job, train=replace(job.train, weight_decay=0.5)), "ce", config, "esc50") == "paper"


def test_fair_is_followed_whatever_was_chosen_and_by_no_other_grid():
    config = config_of("fair", "esc50")
    [job] = head_jobs(config, 12)
    chosen = replace(job, train=replace(job.train, lr=3e-3, weight_decay=0.05))
    jobs = with_seeds([chosen], config)
    assert [one.train.seed for one in jobs] == [0, 1, 2, 3, 4]
    assert {preset_of(one, "ce", config, "esc50") for one in jobs} == {"fair"}
    narrow = replace(config, grid=replace(config.grid, lr=(1e-3, 1e-2)))
    assert preset_of(chosen, "ce", narrow, "esc50") == "custom"
    assert preset_of(chosen, "ce", replace(config, seeds=(0,)), "esc50") == "custom"
    assert preset_of(chosen, "ce", replace(config, preset="paper"), "esc50") == "custom"


@pytest.mark.parametrize(
    ("argv", "wanted"),
    [
        ("--data esc50:E", ("paper", "esc50", 4_000, "ce")),
        ("--data spc2-35:S --train.steps 9000", ("paper", "spc2", 9_000, "bce")),  # what is said wins
        ("--data esc50:E --preset released", ("released", "esc50", 4_000, "ce")),
        ("--data esc50:E --preset-task spc2", ("paper", "spc2", 40_000, "bce")),
        ("--data clips.csv --preset-task esc50", ("paper", "esc50", 4_000, "ce")),
        ("--data clips.csv", ("paper", None, 20_000, "auto")),
        ("--data birdset:B", ("paper", None, 20_000, "auto")),  # the paper has no such column
        ("--data beans:B", ("paper", None, 20_000, "auto")),
        ("--data esc50/clips.csv", ("paper", None, 20_000, "auto")),
    ],
)
def test_the_data_set_chooses_the_papers_column_unless_something_else_is_said(argv: str, wanted: tuple):
    config = cli.parse("probe", ["--model", "m", "--out", "o", *argv.split()])["config"]
    assert (config.preset, config.preset_task, config.train.steps, config.train.loss) == wanted
