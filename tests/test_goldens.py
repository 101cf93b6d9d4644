"""The whole product against golden/house: what an older version measured, printed and left on disk, made anew.

The workload and the comparison are those of golden/make_goldens.py, which wrote house/; golden/README.md has the rest.
"""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("golden") / "make_goldens.py"


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_goldens", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


golden = load_script()

# How far numbers may be apart, relative to the largest of their list. Two threads, and PyTorch's kernels for processors
# without AVX-512 or without any such instructions, moved one number by more than 1e-5 and none by 1e-4. Noise of 1e-6
# of a clip's peak moved some by more than 1e-5 and none by 1e-4, but for what is named here. Ranks of clips stayed as
# they were: the scores that metrics tell apart lie 2e-4 from each other or more.
TOLERANCE = 1e-4
LOOSER = {
    "framing": 5e-3,  # frames are many and nearly tie: that noise swapped ranks, and moved a metric by 1e-3
    "preparing": 1e-3,  # that noise moves resampled samples over a step of 16 bits, which is 30 times as much as it
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("golden")
    golden.write_inputs(path)
    return path


@pytest.mark.parametrize("topic", [topic for topic in golden.TOPICS if topic != "flags"])
def test_all_is_as_the_old_version_had_it(folder: Path, topic: str):
    tolerance = LOOSER.get(topic, TOLERANCE)
    assert golden.differences(golden.expected(topic), golden.numbers(folder, topic), tolerance) == []


def test_every_flag_of_the_old_version_is_there(folder: Path):
    """A verb may take more flags than it did."""
    old, new = golden.expected("flags"), golden.numbers(folder, "flags")
    assert {verb: set(flags) - set(new[verb]) for verb, flags in old.items()} == {verb: set() for verb in old}


@pytest.mark.parametrize("run", golden.RUNS)
def test_the_old_runs_were_stopped_half_way(run: str):
    folder = golden.HOUSE / run
    assert [path.name for path in (folder / "checkpoints").glob("step_*")] == [f"step_{golden.STOPPED:06d}"]
    assert golden.metrics_rows(folder)[-1]["step"] == golden.STOPPED + 1


@pytest.mark.parametrize(
    ("old", "new", "differ"),
    [
        ([1.0, 1e-9], [1.00005, 3e-9], False),  # of one list: beside 1, the second is nothing
        ([1.0, 2.0], [1.0, 2.001], True),
        ([1.0, 2.0], [1.0, 2.0, 3.0], True),
        (1e-3, 1.01e-3, True),
        (3, 3.0, True),
        ({"a": 1}, {"a": 1, "b": 1}, True),
        ({"encoder": {"a": 1}}, {"encoder": {"a": 1, "b": 1}}, False),  # a new setting
        ({"encoder": {"a": 1, "b": 1}}, {"encoder": {"a": 1}}, True),
        ("map 0.412 of 12 clips", "map  0.413 of 12 clips", False),  # the last digit may round otherwise
        ("map 0.412 of 12 clips", "map 0.414 of 12 clips", True),
        ("map 0.412 of 12 clips", "map 0.412 of 13 clips", True),
        ("map 0.412", "mAP 0.412", True),
        ("5e884898da28", "5e884898da29", True),
        (None, 0.0, True),
    ],
)
def test_differences_are_seen(old: Any, new: Any, differ: bool):
    assert bool(golden.differences(old, new, 1e-4)) == differ
