"""Write word_errors.json: random texts, and what jiwer 4.0.0 counts in them.

python -m venv /tmp/jiwer && /tmp/jiwer/bin/pip install jiwer==4.0.0
/tmp/jiwer/bin/python tests/golden/make_word_error_goldens.py
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import jiwer

WORDS = ["a", "un", "una", "ana", "casa", "caso", "roja", "rojo", "pájaro"]


def heard(rng: random.Random, words: list[str]) -> list[str]:
    """The words with some substituted, left out and put in."""
    found = []
    for word in words:
        chance = rng.random()
        if chance < 0.15:
            continue
        found.append(rng.choice(WORDS) if chance < 0.35 else word)
        if chance > 0.9:
            found.append(rng.choice(WORDS))
    return found


def main() -> None:
    rng = random.Random(0)
    true, found = [], []
    for _ in range(60):
        words = [rng.choice(WORDS) for _ in range(rng.randrange(1, 12))]
        true.append(" ".join(words))
        found.append(" ".join(heard(rng, words)) if rng.random() < 0.9 else "")
    pairs = list(zip(true, found, strict=True))
    golden = {
        "true": true,
        "found": found,
        "wer": jiwer.wer(true, found),
        "cer": jiwer.cer(true, found),
        "word_edits": [edits(jiwer.process_words(*pair)) for pair in pairs],
        "character_edits": [edits(jiwer.process_characters(*pair)) for pair in pairs],
    }
    text = json.dumps(golden, ensure_ascii=False, indent=1) + "\n"
    Path(__file__).with_name("word_errors.json").write_text(text, encoding="utf-8")


def edits(output: jiwer.WordOutput | jiwer.CharacterOutput) -> int:
    return output.substitutions + output.deletions + output.insertions


if __name__ == "__main__":
    main()
