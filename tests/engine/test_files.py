"""Files and folders are whole at every instant: whatever fails, the old content or the new one is there."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from audiobat.engine.files import remove, replacing, restore, write_atomic


def test_a_file_is_replaced_by_its_new_content(tmp_path: Path):
    file = tmp_path / "a.txt"
    write_atomic(file, "ä")
    write_atomic(file, b"\x00new")
    assert file.read_bytes() == b"\x00new"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("instant", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch, instant: str):
    file = tmp_path / "a.txt"
    write_atomic(file, "old")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, instant, full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(file, "new and longer")
    assert file.read_text() == "old"


@pytest.mark.parametrize("is_folder", [False, True])
def test_a_block_that_raises_changes_nothing(tmp_path: Path, is_folder: bool):
    place = tmp_path / "below" / "place"

    def write(text: str, fails: bool = False) -> None:
        with replacing(place) as beside:
            if is_folder:
                beside.mkdir()
            (beside / "x" if is_folder else beside).write_text(text)
            if fails:
                raise ZeroDivisionError

    def content() -> str:
        return (place / "x" if is_folder else place).read_text()

    write("old")
    with pytest.raises(ZeroDivisionError):
        write("new", fails=True)
    assert content() == "old"
    write("newer")
    assert content() == "newer"
    assert list(place.parent.iterdir()) == [place]


def test_a_folder_taken_away_by_a_killed_process_comes_back(tmp_path: Path):
    code = """if True:
        import os, signal, sys
        from pathlib import Path
        from audiobat.engine.files import replacing
        rename = Path.rename
        def die(self, target):
            if self.name == "place.tmp":
                os.kill(os.getpid(), signal.SIGKILL)
            return rename(self, target)
        Path.rename = die
        with replacing(Path(sys.argv[1])) as beside:
            beside.mkdir()
    """
    place = tmp_path / "place"
    place.mkdir()
    (place / "x").write_text("old")
    done = subprocess.run([sys.executable, "-c", code, str(place)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not place.exists()
    restore(place)
    assert (place / "x").read_text() == "old"
    restore(place)  # nothing to do
    assert (place / "x").read_text() == "old"
    place.rename(tmp_path / "place.old.tmp")
    with replacing(place) as beside:
        beside.mkdir()
    assert list(tmp_path.iterdir()) == [place], "the copy of the killed process is not left behind"


def test_remove_takes_files_folders_links_and_nothing(tmp_path: Path):
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    remove(tmp_path / "link")
    assert (tmp_path / "folder" / "deep").is_dir()
    remove(tmp_path / "folder")
    remove(tmp_path / "folder")
    assert list(tmp_path.iterdir()) == []
