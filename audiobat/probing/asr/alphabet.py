"""Texts of utterances to the numbers of their characters, and back. 0 is CTC's blank, 1 the space."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from audiobat.errors import AudiobatError

ENGLISH = "abcdefghijklmnopqrstuvwxyz'"  # with blank and space the 29 of BAT's release
BLANK, SPACE = 0, 1
APOSTROPHES = str.maketrans("’ʼ`", "'''")
SPOKEN = "LMN"  # Unicode's categories of what is said: letters, the marks on them, numerals
SHOWN = 8  # characters in a message


def normal_text(text: str, characters: str | None) -> str:
    """A text in lower case, with single spaces in place of all that is neither spoken nor among `characters`.

    Letters, marks and numerals stay whatever they are, so that nobody is told a rate on words that were changed.
    """
    kept = set("'" if characters is None else characters)
    lower = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).lower().translate(APOSTROPHES))
    spoken = "".join(c if c in kept or unicodedata.category(c)[0] in SPOKEN else " " for c in lower)
    return " ".join(spoken.split())


@dataclass(frozen=True)
class Alphabet:
    """The characters that a recogniser knows, but for blank and space."""

    characters: str

    @classmethod
    def of_texts(cls, texts: Iterable[str]) -> Alphabet:
        """The characters that occur in normal texts."""
        return cls("".join(sorted({c for text in texts for c in text} - {" "})))

    def __len__(self) -> int:
        """Classes of a recogniser, with blank and space."""
        return 2 + len(self.characters)

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The number of each character."""
        return {" ": SPACE} | {c: i for i, c in enumerate(self.characters, start=2)}

    def encode(self, text: str) -> list[int]:
        """The numbers of the characters of a normal text; KeyError for one that is not known."""
        return [self.numbers[c] for c in text]

    def decode(self, numbers: Sequence[int]) -> str:
        """The text of these numbers, with single spaces between words."""
        return " ".join("".join(" " if i == SPACE else self.characters[i - 2] for i in numbers).split())

    def unknown(self, texts: Iterable[str]) -> Counter[str]:
        """How often each character that is not known occurs."""
        return Counter(c for text in texts for c in text if c not in self.numbers)

    def check(self, texts: Iterable[str], where: str) -> None:
        """Raise an AudiobatError that lists the characters of normal texts that are not known, if there are any."""
        if found := self.unknown(texts):
            shown = ", ".join(f"{c} ({count:,})" for c, count in found.most_common(SHOWN))
            more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
            raise AudiobatError(
                f"{where} has characters that the alphabet lacks: {shown}{more}. Write numbers as words, or set "
                "by_task.asr.characters to those that occur, or to null for those of the training texts."
            )
