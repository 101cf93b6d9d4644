"""A release folder, or a model of this process, to the Hugging Face Hub."""

from __future__ import annotations

import tempfile
from pathlib import Path

from audiobat.engine.files import read_json
from audiobat.errors import AudiobatError
from audiobat.models.encoder import BaseEncoder
from audiobat.models.tagger import Tagger
from audiobat.zoo import release as release_io
from audiobat.zoo.card import CARD, is_licensed
from audiobat.zoo.hf_hub import check_name, upload


def push(
    folder_or_model: str | Path | BaseEncoder | Tagger,
    name: str,
    private: bool = False,
    trust_remote_code: bool = False,
) -> str:
    """Put a release on the Hugging Face Hub, as one commit of its own files; returns the address of its page.

    Log in first, with `hf auth login`. `audiobat.load("hub:OWNER/NAME")` takes it from there.

    Args:
        folder_or_model: a folder that `audiobat export` or `audiobat finetune` made, which is read first, so that
            nothing broken is shared; or an encoder, or a Tagger.
        name: OWNER/NAME; made if it is not there.
        private: let only its owner see it, if it is new.
        trust_remote_code: run the Python files that come with the model, if it has any; read them first.

    Raises:
        AudiobatError: a folder that is no whole release, a bad name, nobody logged in, or no connection.
    """
    check_name(name)
    if isinstance(folder_or_model, str | Path):
        folder = release_io.find(folder_or_model)
        file = folder / "config.json"
        if not file.is_file():
            raise AudiobatError(f"{folder} is no release: make one with `audiobat export --to release`.")
        config = read_json(file)
        if "auto_map" not in config:  # else transformers reads it, by the code that lies beside
            read = release_io.load_tagger if "tagger" in config else release_io.load
            read(folder, trust_remote_code=trust_remote_code)
        card = folder / CARD
        if card.is_file() and not is_licensed(card.read_text(encoding="utf-8")):
            print(
                f"{card} names no licence, so nobody may use the model: write yours in its first lines and push again."
            )
        return upload(folder, name, private)
    with tempfile.TemporaryDirectory(prefix="audiobat-") as place:
        folder = Path(place) / name.rpartition("/")[2]
        release_io.save_release(folder, folder_or_model)
        return upload(folder, name, private)
