"""SECURITY.md: each promise names a test that is there; and the promises that no room's own tests hold."""

import io
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiobat.config.recipes import load_recipe
from audiobat.data.clip import read_clip
from audiobat.data.sources.read import read_clips
from audiobat.errors import AudiobatError

HOUSE = Path(__file__).parents[2]


def test_every_promise_names_a_test_that_is_there():
    text = (HOUSE / "SECURITY.md").read_text(encoding="utf-8")
    promises = re.findall(r"^- \*\*.*?(?=^- \*\*|^#|\Z)", text.split("## Not promised")[0], re.MULTILINE | re.DOTALL)
    named = [re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", promise) for promise in promises]
    assert len(promises) >= 7
    assert [promise for promise, tests in zip(promises, named, strict=True) if not tests] == []
    for file, name in (test for tests in named for test in tests):
        assert f"def {name}(" in (HOUSE / file).read_text(encoding="utf-8"), (file, name)


def test_yaml_makes_no_objects(tmp_path: Path):
    made = tmp_path / "made"
    for tag in ("object/apply:os.mkdir", "object/new:os.mkdir"):
        (tmp_path / "recipe.yaml").write_text(f"train: !!python/{tag} [{made}]\n")
        with pytest.raises(AudiobatError, match=r"recipe\.yaml"):
            load_recipe(tmp_path / "recipe.yaml")
    assert not made.exists()


@pytest.mark.parametrize("name", ["../outside.wav", "/tmp/outside-of-everything.wav", "a/../../outside.wav"])
def test_members_of_a_tar_are_read_and_never_written(tmp_path: Path, name: str):
    tars, sound = tmp_path / "in" / "tars", io.BytesIO()
    tars.mkdir(parents=True)
    soundfile.write(sound, np.zeros(4_000), 8_000, format="WAV")
    with tarfile.open(tars / "0.tar", "w") as tar:
        for member in (name, "whole.wav"):
            info = tarfile.TarInfo(member)
            info.size = len(sound.getvalue())
            tar.addfile(info, io.BytesIO(sound.getvalue()))
    before = sorted(tmp_path.rglob("*"))
    table = read_clips(tars)
    assert all(len(read_clip(table, clip_id, 8_000)) == 4_000 for clip_id in range(len(table)))
    assert len(table) >= 1
    assert [path for path in sorted(tmp_path.rglob("*")) if path not in before and path.suffix == ".wav"] == []
    assert not Path("/tmp/outside-of-everything.wav").exists()
