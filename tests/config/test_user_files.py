"""What a run or a release keeps of a user's own files: hashes, copies, and nothing that runs unasked."""

import hashlib
import sys
from pathlib import Path

import pytest

from audiobat.config.registry import find
from audiobat.config.user_files import (
    file_of,
    files_used,
    find_in_file,
    hashes_of,
    place_of,
    to_share,
    user_classes,
    with_copies,
)
from audiobat.errors import AudiobatError

CODE = "class Mine:\n    def build(self): ...\n    def forward(self): ...\n"
FIELDS = {"frontend": {"kind": "mel_db"}, "decoder": {"kind": "own/mine.py:Mine", "depth": 2}, "heads": ["cgp"]}


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("own").mkdir()
    Path("own/mine.py").write_text(CODE)
    return tmp_path


def made(folder: Path, fields: dict) -> tuple[dict, Path]:
    """A release's fields and folder, as it is written."""
    shared, files = to_share(fields)
    for name, content in files.items():
        (folder / "code").mkdir(parents=True, exist_ok=True)
        (folder / "code" / name).write_bytes(content)
    return shared, folder


def test_classes_are_found_wherever_a_kind_stands():
    fields = {"head": {"kind": "a.py:A"}, "deep": {"target": {"source": "b.py:B"}}, "heads": ("cgp", "c.py:C")}
    assert user_classes(fields | {"title": "d.py:D"}) == ["a.py:A", "b.py:B", "c.py:C"]


def test_a_release_goes_elsewhere_with_its_file(here, tmp_path):
    shared, folder = made(tmp_path / "release", FIELDS)
    assert shared["decoder"]["kind"] == "mine.py:Mine"
    assert shared["files"] == {"mine.py": hashlib.sha256(CODE.encode()).hexdigest()}
    Path("own/mine.py").unlink()
    found = with_copies(shared, folder, trust=True)
    assert "files" not in found
    assert found["decoder"] == {"kind": f"{folder / 'code/mine.py'}:Mine", "depth": 2}
    assert found["heads"] == ["cgp"]
    again, files = to_share(found)  # saved once more, from the copy
    assert (again, files) == (shared, {"mine.py": CODE.encode()})


def test_nothing_runs_without_trust_or_with_another_copy(here, tmp_path):
    shared, folder = made(tmp_path / "release", FIELDS)
    copy = folder / "code/mine.py"
    copy.write_text("raise SystemExit")  # would end the test if it ran
    with pytest.raises(
        AudiobatError, match=r"needs Python code that came with it: read .*mine\.py.*--trust-remote-code"
    ):
        with_copies(shared, folder, trust=False)
    with pytest.raises(AudiobatError, match=r"mine\.py is not the file that .*release was made with"):
        with_copies(shared, folder, trust=True)
    copy.unlink()
    with pytest.raises(AudiobatError, match="is not the file"):
        with_copies(shared, folder, trust=True)
    with pytest.raises(AudiobatError, match="is not the file"):  # an attacker may leave the hash out
        with_copies({**shared, "files": {}}, folder, trust=True)


def test_without_classes_of_ones_own_nothing_is_added():
    fields = {"decoder": {"kind": "vit"}}
    assert to_share(fields) == (fields, {})
    assert with_copies(fields, Path("x"), trust=False) == fields


def test_the_bytes_that_ran_are_kept_and_two_files_of_one_name_are_refused(here):
    find("decoder", "own/mine.py:Mine")
    Path("own/mine.py").write_text("changed since")
    assert files_used(FIELDS) == {"own/mine.py": CODE.encode()}
    assert hashes_of(files_used(FIELDS)) == {"own/mine.py": hashlib.sha256(CODE.encode()).hexdigest()}
    Path("mine.py").write_text(CODE)
    with pytest.raises(AudiobatError, match=r"own/mine\.py and mine\.py have one name"):
        files_used(FIELDS | {"mask": {"kind": "mine.py:Mine"}})


def test_a_file_given_by_a_relative_path_is_found_from_another_folder(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("class Mine:\n    pass\n")
    monkeypatch.chdir(tmp_path)
    found = find_in_file(Path("mine.py"), "Mine")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert place_of(found) == "mine.py line 1"
    assert file_of(sys.modules[found.__module__]) == (tmp_path / "mine.py").resolve()
