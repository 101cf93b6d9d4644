"""The task asr on clips whose characters are levels: it learns to read them, and says what it cannot use."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import nn

from audiobat.errors import AudiobatError
from audiobat.evaluation.record import ResultRecord, load_record, load_values
from audiobat.models.features import LayerFeatures
from audiobat.probing import one_pass
from audiobat.probing.run import probe

RATE, COLUMN = 1_000, 20  # Hz; samples, so that a column is a frame of 20 ms
CHARACTERS = " abc"
WORDS = ("a", "ab", "cab", "bac", "ca", "bb")
ASR = {"characters": "abc", "hidden": 16, "steps": 150, "warmup_steps": 10, "batch_size": 8, "lr": 1e-2, "beam": 4}


class Levels(nn.Module):
    """An encoder whose columns say in which of a few levels the samples are; its second block is noise."""

    sample_rate, dim, depth = RATE, 6, 2

    def __init__(self, columns: int | None = None) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.linspace(0, 0.5, self.dim))
        self.columns = columns  # of every clip; None: one for every 20 ms
        self.kept: list[int] = []  # patches of each batch, as they were asked for

    def forward_intermediates(self, waveform: torch.Tensor, lengths: torch.Tensor | None = None) -> LayerFeatures:
        lengths = torch.full((len(waveform),), waveform.shape[1]) if lengths is None else lengths
        columns = waveform.shape[1] // COLUMN if self.columns is None else self.columns
        levels = waveform[:, : columns * COLUMN].unflatten(1, (columns, -1)).mean(-1)  # [B, T]
        tokens = (-((levels[..., None] - self.weights) ** 2) * 500).exp()  # [B, T, D]
        noise = torch.randn(tokens.shape, generator=torch.Generator().manual_seed(0))
        stack = torch.stack([tokens, noise]).repeat_interleave(2, 2)  # two patches a column
        valid = torch.arange(columns) < (lengths // COLUMN)[:, None].clamp(1)
        times = torch.arange(columns) * COLUMN / RATE
        return LayerFeatures(stack, None, (columns, 2), valid.repeat_interleave(2, 1), times)


def write_list(folder: Path, texts: list[str], columns: int = 3, **more: list[str]) -> Path:
    """Clips in which each character is its level for `columns` columns; every fourth tests."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [["path", "text", "split", *more]]
    for i, text in enumerate(texts):
        levels = [0.1 * (1 + CHARACTERS.index(c)) for c in text.lower() if c in CHARACTERS]
        soundfile.write(folder / f"{i}.wav", np.repeat(np.array(levels or [0.0]), columns * COLUMN), RATE, "FLOAT")
        rows.append([f"{i}.wav", text, "test" if i % 4 == 3 else "train", *(values[i] for values in more.values())])
    with (folder / "clips.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return folder / "clips.csv"


def sentences(count: int) -> list[str]:
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, rng.integers(1, 4))) for _ in range(count)]


def config(**changed: object) -> dict[str, object]:
    return {"tasks": ["asr"], "by_task": {"asr": ASR | changed}, "workers": 0}


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ResultRecord]:
    folder = tmp_path_factory.mktemp("asr")
    texts = sentences(32)
    data = write_list(folder / "data", texts, group=[f"speaker {i // 4 % 4}" for i in range(32)])
    (record,) = probe(Levels(), data, config(), out=folder / "out")
    return folder / "out/results/Levels_asr_0.json", record


def test_it_learns_to_read_levels(learnt):
    _, record = learnt
    assert record.head["kind"] == "asr"
    assert list(record.metrics) == ["wer", "cer", "wer_beam", "cer_beam"]
    for metric in record.metrics.values():
        assert metric.lower_is_better
        assert metric.low <= metric.value <= metric.high
        assert metric.value < 0.2
    assert record.data.clips == {"train": 24, "test": 8}
    assert record.gate_weights[0] > 0.6  # the block that is no noise


def test_texts_and_values_lie_beside_the_record(learnt):
    path, record = learnt
    with path.with_suffix(".csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [f"{i}.wav" for i in range(3, 32, 4)]
    edits, words = (np.array([int(row[name]) for row in rows]) for name in ("word_errors", "words"))
    assert [row["text"] for row in rows] == sentences(32)[3::4]
    assert record.metrics["wer"].value == pytest.approx(edits.sum() / words.sum())
    values = load_values(path, load_record(path))
    assert values.values.mean() == pytest.approx(record.metrics["wer"].value)
    assert set(values.groups.tolist()) == {f"speaker {i}" for i in range(4)}


def test_a_seed_is_repeated_and_another_differs(tmp_path):
    data = write_list(tmp_path / "data", sentences(12))
    short = config(steps=8, warmup_steps=2)
    first, again = (probe(Levels(), data, short)[0] for _ in range(2))
    other = probe(Levels(), data, short | {"seeds": [1]})[0]
    assert first.gate_weights == again.gate_weights
    assert first.metrics == again.metrics
    assert first.gate_weights != other.gate_weights


def test_only_the_means_over_frequency_are_kept(tmp_path, monkeypatch):
    found = []
    kept = one_pass.cache_features
    monkeypatch.setattr(one_pass, "cache_features", lambda *args, **kw: found.append(kept(*args, **kw)) or found[-1])
    probe(Levels(), write_list(tmp_path / "data", sentences(8)), config(steps=2, warmup_steps=0))
    assert found[0].freq_patches == 1
    assert found[0].batch([0]).grid[1] == 1


def test_the_best_weights_on_clips_that_validate_are_kept(tmp_path, capsys):
    data = write_list(tmp_path / "data", sentences(16))
    marked = re.sub(r"^(0|4|8)\.wav,(.*),train$", r"\1.wav,\2,valid", data.read_text(), flags=re.MULTILINE)
    data.write_text(marked)
    probe(Levels(), data, config(steps=20, validate_every=5) | {"select": {"which": "best"}})
    told = capsys.readouterr().err
    kept = re.search(r"asr, seed 0: step (\d+) of 20 is kept, [\d.]+ of the characters wrong on 3 valid", told)
    assert int(kept[1]) in (5, 10, 15, 20)


def test_texts_longer_than_their_clips_are_counted(tmp_path, capsys):
    texts = sentences(12)
    data = write_list(tmp_path / "data", texts)
    data.write_text(data.read_text().replace(f"0.wav,{texts[0]},", f"0.wav,{'abc ' * 30},", 1))
    probe(Levels(), data, config(steps=8, warmup_steps=2))
    assert "! asr: 1 of 9 training texts have more characters than their clips have frames" in capsys.readouterr().err


def test_a_model_with_longer_columns_divides_them(tmp_path, capsys):
    class Slow(Levels):
        def forward_intermediates(self, waveform, lengths=None):
            fine = super().forward_intermediates(waveform, lengths)
            return LayerFeatures(fine.patch_tokens, None, fine.grid, fine.valid, fine.frame_times * 8)

    data = write_list(tmp_path / "data", ["b", "bb", "abb", "a"] * 2, columns=1)  # "bb" needs three frames
    for upsample, fits in ((1, False), (None, True)):
        probe(Slow(), data, config(steps=2, warmup_steps=0, upsample=upsample))
        assert ("more characters" not in capsys.readouterr().err) == fits


def mistake(tmp_path: Path, encoder: nn.Module | None = None, rows: str = "", **changed: object) -> str:
    """The sentence that a probe ends with."""
    data = write_list(tmp_path / "data", sentences(8))
    if rows:
        data.write_text(rows, encoding="utf-8")
    with pytest.raises(AudiobatError) as caught:
        probe(encoder or Levels(), data, config(**changed))
    return str(caught.value)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (
            "path,words,split\n0.wav,a,train\n1.wav,b,test\n",
            "has no column 'text': it has words; name it by --by_task.asr.column.",
        ),
        ("path,text,split\n0.wav,a,train\n1.wav,-,test\n", "1 of 2 clips have no word in column `text`, such as 1.wav"),
        ("path,text,split\n0.wav,a é,train\n1.wav,b5,test\n", "characters that the alphabet lacks: é (1), 5 (1)"),
        ("path,text,split\n0.wav,a,train\n1.wav,b,train\n", "Split test has no clips"),
    ],
)
def test_clips_that_it_cannot_use_are_told_before_features(tmp_path, monkeypatch, rows, told):
    monkeypatch.setattr(one_pass, "cache_features", lambda *_, **__: pytest.fail("features were computed"))
    assert told in mistake(tmp_path, rows=rows)


def test_a_model_with_one_token_a_clip_is_refused(tmp_path):
    assert "gives one token for 2 s" in mistake(tmp_path, Levels(columns=1))


def test_texts_of_other_clips_are_told_where_none_fits(tmp_path):
    rows = "path,text,split\n" + "".join(f"{i}.wav,{'abc ' * 40},{'test' if i == 3 else 'train'}\n" for i in range(8))
    assert "none of the texts of the first 8 clips fits" in mistake(tmp_path, rows=rows)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"beam": 0}, "by_task.asr.beam"),
        ({"characters": "aA"}, "by_task.asr.characters"),
        ({"warmup_steps": 150}, "by_task.asr.warmup_steps is 150: it must end before by_task.asr.steps 150"),
        ({"betas": 1}, "betas"),
    ],
)
def test_settings_that_suit_nothing_are_named(tmp_path, changed, told):
    assert told in mistake(tmp_path, **changed)


def test_characters_of_test_texts_alone_are_told(tmp_path, capsys):
    texts = [text.replace("c", "b") for text in sentences(8)]
    data = write_list(tmp_path / "data", texts)
    data.write_text(data.read_text().replace(f"3.wav,{texts[3]},", "3.wav,ñu a,", 1), encoding="utf-8")
    probe(Levels(), data, config(characters=None, steps=2, warmup_steps=0))
    assert "2 characters of test texts are in no training text and count as errors: uñ" in capsys.readouterr().err
