"""Damaged and hostile YAML ends in one sentence in every reader; a config's YAML gives it back."""

import pytest

from audiobat.cli.command import main
from audiobat.config import FinetuneConfig, PretrainConfig
from audiobat.config.recipes import load_recipe, make_config, parse_yaml, write_yaml
from audiobat.engine.run_folder import check_same, prepare_run
from audiobat.errors import AudiobatError
from audiobat.zoo.release import run_fields


def aliases(inner: str, last: int = 12) -> bytes:
    """Lists, or groups, of ten times the one before, from a few lines."""
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{i}: &a{i} {inner.format(','.join([f'*a{i - 1}'] * 10))}" for i in range(1, last)]
    return "\n".join(lines).encode()


NO_FIELDS = {"empty": b"", "a list": b"- 1\n", "a number": b"5\n", "a text": b"hello\n", "no names": b"1: 2\n~: 3\n"}
DAMAGED = {
    **{"deep lists": b"[" * 1000 + b"]" * 1000, "lists without end": b"[" * 100_000},
    **{"deep groups": b"a: " + b"{a: " * 200 + b"1" + b"}" * 200},
    **{"digits": b"train: {steps: " + b"1" * 5000 + b"}", "hex digits": b"train: {steps: 0x" + b"f" * 5000 + b"}"},
    **{"base 60": b"train: {steps: 1" + b":1" * 100_000 + b".5}"},
    **{"tabs": b"train:\n\tsteps: 5\n", "twice": b"train: {steps: 1}\ntrain: {steps: 2}\n"},
    **{"many lists": aliases("[{}]"), "many groups": aliases("{{<<: [{}]}}"), "itself": b"a: &a [*a]\n"},
    **{"bytes": bytes(range(256)), "zero": b"a: \x00\n", "UTF-16": "a: 1".encode("utf-16")},
    **{"no int": b"a: !!int x\n", "no bool": b"a: !!bool x\n", "no such tag": b"a: !!python/name:os.system\n"},
    **{"two documents": b"a: 1\n---\nb: 2\n", "half a line": b"train: {steps: "},
}


@pytest.mark.parametrize("name", [*NO_FIELDS, *DAMAGED])
def test_every_reader_ends_in_a_sentence(tmp_path, name):
    for file in (tmp_path / "config.yaml", tmp_path / "recipe.yaml"):
        file.write_bytes((NO_FIELDS | DAMAGED)[name])
    readers = {
        "config.yaml": [
            lambda: run_fields(tmp_path),
            lambda: check_same(tmp_path / "config.yaml", PretrainConfig(), {}),
            lambda: check_same(tmp_path / "config.yaml", FinetuneConfig(), {"model": "m"}),
        ],
        "recipe.yaml": [lambda: load_recipe(tmp_path / "recipe.yaml")] if name != "empty" else [],
    }
    for file, calls in readers.items():
        for call in calls:
            with pytest.raises(AudiobatError) as caught:
                call()
            assert file in str(caught.value)
            assert len(str(caught.value)) < 500


@pytest.mark.parametrize("verb", ["pretrain", "probe", "finetune", "benchmark", "ladder", "export", "doctor"])
def test_every_verb_says_so_in_one_line(tmp_path, capsys, verb):
    (tmp_path / "config.yaml").write_bytes(DAMAGED["deep lists"])
    (tmp_path / "checkpoints" / "step_000001").mkdir(parents=True)
    recipe = ["--config", f"{tmp_path}/config.yaml", "--data", str(tmp_path), "--out", f"{tmp_path}/out"]
    arguments = {
        "pretrain": recipe,
        "probe": [*recipe, "--model", "bat_nano"],
        "finetune": [*recipe, "--model", "bat_nano"],
        "benchmark": ["--config", f"{tmp_path}/config.yaml", "--out", f"{tmp_path}/out"],
        "ladder": recipe,
        "export": ["--model", str(tmp_path), "--to", "release", "--out", f"{tmp_path}/out"],
        "doctor": [str(tmp_path)],
    }
    assert main([verb, *arguments[verb]]) == 2
    error = capsys.readouterr().err
    assert "is not valid YAML: groups within groups without end" in error
    assert error.count("\n") == 1


def test_dates_are_text_and_so_is_what_looks_like_a_number(tmp_path):
    for text in ("2026-13-45", "2026-11-01", "5e-4", "1e5", "0x1f", "yes", "1:30", "~", "=", "<<"):
        config = make_config(PretrainConfig, {"data": {"path": text}})
        prepare_run(tmp_path / text, config, "auto", False)
        assert run_fields(tmp_path / text)["data"]["path"] == text
        check_same(tmp_path / text / "config.yaml", config, {})
        assert parse_yaml(write_yaml({text: text}), "") == {text: text}
    assert parse_yaml("a: 2026-13-45", "") == {"a": "2026-13-45"}
    assert parse_yaml("a: 5e-4", "") == {"a": 5e-4}


@pytest.mark.parametrize("files", ["5", "[a]", "{1: 2}"])
def test_files_of_the_wrong_kind(tmp_path, files):
    (tmp_path / "config.yaml").write_text(f"files: {files}")
    with pytest.raises(AudiobatError, match="files must name"):
        check_same(tmp_path / "config.yaml", PretrainConfig(), {})


def test_a_value_that_is_long_is_cut_in_the_sentence():
    with pytest.raises(AudiobatError, match=r"data\.clip_seconds is 'xxx.* \.\.\. x") as caught:
        make_config(PretrainConfig, {"data": {"clip_seconds": "x" * 100_000}})
    assert len(str(caught.value)) < 400
