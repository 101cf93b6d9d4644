"""The benchmarks of a step run to their end on any machine, and say what they did not measure."""

import json
import subprocess
import sys

import pytest
import torch
from benchmark_scripts import FOLDER, load_script

bench, gpu, step, ways = (load_script(name) for name in ("bench", "gpu", "step", "ways"))


def test_the_gpu_script_measures_each_part_on_a_cpu(tmp_path):
    command = [sys.executable, FOLDER / "gpu.py", "--tiny", "--device", "cpu", "--out", tmp_path]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    record = json.loads((tmp_path / "gpu.json").read_text())
    assert not record["failed"]
    needs_a_gpu = {"memory", "syncs", "cgp_memory", "tests"}
    assert set(record["found"]) == set(gpu.ROWS) - needs_a_gpu
    assert printed.count("TARGET |") == len(gpu.ROWS)
    assert printed.count("not measured") == len(needs_a_gpu)
    page = (tmp_path / "gpu.md").read_text()
    assert all(f"## {title}" in page for title in record["tables"])


def test_a_part_that_fails_or_comes_too_late_leaves_what_the_others_found(tmp_path, monkeypatch):
    def breaks(self):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(gpu.Bench, "parts", property(lambda self: [self.rate, breaks.__get__(self), self.cgp]))
    bench = gpu.Bench("cpu", True, tmp_path)
    bench.measure_all(1)
    record = json.loads((tmp_path / "gpu.json").read_text())
    assert "no such kernel" in record["failed"]["breaks"]
    assert set(record["found"]) == {"cgp_time"}
    late = gpu.Bench("cpu", True, tmp_path)
    late.measure_all(-1)
    assert set(late.failed) == {"rate", "breaks", "cgp"}


def test_rows_are_met_missed_or_not_measured(tmp_path):
    bench = gpu.Bench("cpu", True, tmp_path)
    bench.found = {"syncs": 0, "speed": 1.49}
    met = {what: met for what, _, _, met in bench.lines()}
    assert met[gpu.ROWS["syncs"][0]] is True
    assert met[gpu.ROWS["speed"][0]] is False
    assert met[gpu.ROWS["rate"][0]] is None


@pytest.mark.parametrize(("ours", "verdicts"), [(0.5, ["met", "met", "met"]), (0.9, ["missed", "met", "missed"])])
def test_targets_of_a_step(ours, verdicts, capsys):
    seconds = {"plain": 1.0, "ours": ours, "ours, fused": 0.6, "ours, math": 0.7}
    step.say_targets("tiny", "fp32", seconds, {"plain": 100.0, "ours": 45.0}, "")
    assert [line.split("|")[-1].strip() for line in capsys.readouterr().out.splitlines()] == verdicts


def test_steps_are_made_in_processes_whose_memory_is_read_from_outside():
    changes = gpu.TINY | {"data": {"clip_seconds": 0.64}}
    order = {"recipe": "bat_base", "changes": changes, "precision": "fp32"}
    both = [step.Way(order | {"way": way}) for way in ("plain", "ours")]
    peaks = step.measure(both, 1)
    assert all(5 < peak < 500 for peak in peaks), peaks
    assert all(way.seconds > 0 and way.cpu > 0 and way.turns == way.all_turns[-1:] for way in both)
    assert all(way.process.poll() is not None for way in both)


def test_attention_written_out_is_attention():
    q, k, v = torch.randn(3, 2, 4, 7, 8)
    mask = torch.rand(2, 1, 1, 7) < 0.7
    mask[..., 0] = True
    for some in (None, mask):
        wanted = torch.nn.functional.scaled_dot_product_attention(q, k, v, some)
        torch.testing.assert_close(ways.written_out(q, k, v, attn_mask=some), wanted)


def test_make_bench_collects_rows_and_says_which_script_failed(monkeypatch, tmp_path, capsys):
    (tmp_path / "good.py").write_text("print('| a table |'); print('TARGET | speed | 2 | at least 1 | met')")
    (tmp_path / "bad.py").write_text("raise SystemExit(3)")
    monkeypatch.setattr(bench, "FOLDER", tmp_path)
    monkeypatch.setattr(bench, "COMMANDS", ("good.py --quick", "bad.py"))
    bench.main([])
    summary = capsys.readouterr().out.split("| what | found | target | |")[1]
    assert "| speed | 2 | at least 1 | met |" in summary
    assert "| bad.py | failed |" in summary
    assert "a table" not in summary
    bench.main(["good.py"])
    assert "bad.py" not in capsys.readouterr().out


def test_make_bench_runs_scripts_that_are_there():
    assert all((FOLDER / words.split()[0]).exists() for words in bench.COMMANDS)
