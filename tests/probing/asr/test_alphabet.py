"""Texts to the characters of a recogniser: what is dropped, what is kept, what is refused."""

import pytest

from audiobat.errors import AudiobatError
from audiobat.probing.asr.alphabet import ENGLISH, Alphabet, normal_text


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("HE HOPED THERE WOULD BE STEW", "he hoped there would be stew"),
        ("  Don’t -- stop!\tNow. ", "don't stop now"),
        ("well-known", "well known"),
        ("Cafe\u0301 №5", "café 5"),  # composed; what is said stays, for the alphabet to refuse
        ("...", ""),
    ],
)
def test_signs_become_spaces_and_what_is_said_stays(text, normal):
    assert normal_text(text, ENGLISH) == normal


def test_marks_of_other_scripts_stay():
    assert normal_text("ബോൾസം!", None) == "ബോൾസം"


def test_the_english_alphabet_has_29_classes_with_blank_and_space():
    alphabet = Alphabet(ENGLISH)
    assert len(alphabet) == 29
    text = "it's a dog"
    numbers = alphabet.encode(text)
    assert 0 not in numbers
    assert max(numbers) < 29
    assert alphabet.decode(numbers) == text
    assert alphabet.decode([1, 1, *numbers, 1]) == text  # spaces at the ends and twice count once


def test_the_characters_of_texts_are_those_that_occur():
    alphabet = Alphabet.of_texts(["un niño", "año"])
    assert alphabet.characters == "ainouñ"
    assert alphabet.unknown(["una casa"]) == {"c": 1, "s": 1}


def test_unknown_characters_are_listed_with_their_number():
    with pytest.raises(AudiobatError, match=r"column `text` has characters that the alphabet lacks: é \(2\), 5 \(1\)"):
        Alphabet(ENGLISH).check(["café é", "room 5"], "column `text`")
