"""Releases on the Hugging Face Hub: `hub:OWNER/NAME[@REVISION]` to a folder here, and a folder here to OWNER/NAME.

Only the files of a release are fetched, and nothing that comes is run.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from audiobat.errors import AudiobatError
from audiobat.zoo.card import CARD, FIGURE, is_licensed, without_licence

PREFIX = "hub:"
NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)
REVISION = re.compile(r"\w[\w./-]*", re.ASCII)
FILES = ("config.json", "model.safetensors", "head.safetensors", CARD, FIGURE, "code/*.py")  # of a release
CODE = ("*.py", "preprocessor_config.json")  # besides, of a folder for transformers
SECONDS = 5.0  # to wait for the hub's answer
LOG_IN = "log in with `hf auth login`"


def is_shared(source: object) -> bool:
    """Whether this names a release on the hub."""
    return str(source).startswith(PREFIX)


def check_name(name: str) -> None:
    """Raise an AudiobatError unless this is OWNER/NAME."""
    if not NAME.fullmatch(name) or ".." in name or "--" in name:
        raise AudiobatError(f"{name[:100]!r} is no name on the hub: give OWNER/NAME.")


def fetch(source: str) -> Path:
    """Download `hub:OWNER/NAME[@REVISION]` and return its folder; where the hub cannot be reached, that of last time.

    Raises:
        AudiobatError: a bad name, no such release, no access to it, or no connection and nothing from before.
    """
    name, at, revision = source.removeprefix(PREFIX).partition("@")
    check_name(name)
    if at and (not REVISION.fullmatch(revision) or ".." in revision):
        raise AudiobatError(f"{revision[:100]!r} is no revision of hub:{name}: give a branch, a tag or a commit.")
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

    wanted: dict[str, Any] = {"allow_patterns": list(FILES), "etag_timeout": SECONDS}
    try:  # this question is asked once and not for long; snapshot_download would ask for minutes
        commit = HfApi().model_info(name, revision=revision or None, timeout=SECONDS).sha
    except GatedRepoError:
        raise AudiobatError(
            f"{source} is given to those who accept its terms: do so on its page, and {LOG_IN}."
        ) from None
    except RepositoryNotFoundError:
        raise AudiobatError(f"{source} is not on the hub, or is private: check the name, or {LOG_IN}.") from None
    except Exception as error:  # each transport raises its own
        if type(error).__name__ == "RevisionNotFoundError":
            raise AudiobatError(f"hub:{name} has no revision {revision}: leave @{revision} out.") from None
        try:
            return Path(snapshot_download(name, revision=revision or None, local_files_only=True, **wanted))
        except LocalEntryNotFoundError:
            raise AudiobatError(
                f"The hub cannot be reached ({one_line(error)}), and {source} has not been fetched before: connect, or "
                "give a folder."
            ) from None
    try:
        return Path(snapshot_download(name, revision=commit, **wanted))
    except Exception as error:
        raise AudiobatError(f"{source} cannot be fetched ({one_line(error)}): try again.") from error


def upload(folder: Path, name: str, private: bool) -> str:
    """Upload the files of a release, or of a folder for transformers, as one commit; returns its address.

    A card whose licence the user has not filled in is uploaded without one: the hub refuses a licence that it does
    not know.

    Raises:
        AudiobatError: a bad name, nobody logged in, no right to write there, or no connection.
    """
    check_name(name)
    from huggingface_hub import HfApi
    from huggingface_hub.errors import LocalTokenNotFoundError

    api = HfApi()
    with tempfile.TemporaryDirectory(prefix="audiobat-") as stage:
        for pattern in (*FILES, *CODE):
            for file in folder.glob(pattern):
                copy = Path(stage) / file.relative_to(folder)
                copy.parent.mkdir(exist_ok=True)
                shutil.copyfile(file, copy)
        card = Path(stage) / CARD
        if card.exists() and not is_licensed(text := card.read_text(encoding="utf-8")):
            card.write_text(without_licence(text), encoding="utf-8")
        own = [*FILES, *CODE]
        try:
            api.create_repo(name, private=private, exist_ok=True)
            done = api.upload_folder(repo_id=name, folder_path=stage, allow_patterns=own, commit_message="A release")
        except LocalTokenNotFoundError:
            raise AudiobatError(f"Nobody is logged in to the hub, so {name} cannot be written: {LOG_IN}.") from None
        except Exception as error:
            raise AudiobatError(
                f"{name} cannot be written on the hub ({one_line(error)}): check the name and your access, or {LOG_IN}."
            ) from error
    return str(done.repo_url)


def one_line(error: BaseException) -> str:
    """The class of an error and the first line of its text."""
    first = (str(error).strip().splitlines() or [""])[0][:200].rstrip(".: ")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
