"""What a run depends on besides its config: versions, machine, and the commit of this very code."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy
import torch

import audiobat
from audiobat.engine import environment as environment_file
from audiobat.engine.environment import environment, git_commit


def test_environment_names_versions_machine_and_time():
    found = environment()
    assert found["audiobat"] == audiobat.__version__
    assert found["torch"] == torch.__version__
    assert type(found["torch"]) is str
    assert found["numpy"] == numpy.__version__
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["cpu_threads"] == torch.get_num_threads()
    assert found["created"].endswith("+00:00")
    assert json.loads(json.dumps(found)) == found


def test_the_commit_is_that_of_the_code_and_not_of_a_repository_around_it(tmp_path: Path, monkeypatch):
    def git(*words: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        done = subprocess.run(["git", "-C", tmp_path, *identity, *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    code = tmp_path / "site" / "environment.py"
    code.parent.mkdir()
    shutil.copy(environment_file.__file__, code)
    monkeypatch.setattr(environment_file, "__file__", str(code))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_commit() is None  # no repository
    (tmp_path / "other.txt").write_text("theirs")
    git("init", "-q")
    git("add", "other.txt")
    git("commit", "-q", "-m", "theirs")
    assert git_commit() is None  # a repository that does not know the code
    git("add", "site/environment.py")
    git("commit", "-q", "-m", "ours")
    assert git_commit() == git("rev-parse", "HEAD")
    code.write_text("changed")
    assert git_commit() == git("rev-parse", "HEAD") + "-dirty"
    monkeypatch.setenv("PATH", "")
    assert git_commit() is None  # no git
