"""The files of examples/cluster/: their scripts run with commands that only note how they were called."""

import re
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from audiobat.cli.parse import parse

FOLDER = Path(__file__).parents[1] / "examples" / "cluster"
BATCH = sorted(FOLDER.glob("*.sbatch"))
MANIFESTS = sorted(FOLDER.glob("*.yaml"))
OPTIONS = {  # of sbatch, that the files use
    *("job-name", "nodes", "ntasks", "ntasks-per-node", "gpus", "gpus-per-node", "cpus-per-task", "time", "signal"),
    *("requeue", "open-mode", "output", "array"),
}
NOTES = """#!/bin/bash
trap 'exit 75' TERM
echo "$RANK $LOCAL_RANK $WORLD_SIZE audiobat ${@@Q}" >> calls
[ -z "$WAITS" ] || while true; do sleep 0.05; done
exit "$CODE"
"""
SRUN = """#!/bin/bash
while [[ "$1" == --* ]]; do shift; done
"$@"
"""


@pytest.fixture
def start(tmp_path):
    """Starts a script with stand-ins for audiobat, srun and scontrol; its process."""
    stand_ins = {"audiobat": NOTES, "srun": SRUN, "scontrol": '#!/bin/bash\necho "$@" >> requeued\n'}
    for name, text in stand_ins.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)

    def run(script, **variables):
        path = f"{tmp_path}:/usr/local/bin:/usr/bin:/bin"
        environment = {"PATH": path, "SCRATCH": "/scratch", "CODE": "0", **variables}
        return subprocess.Popen([shutil.which("bash"), "-c", script], cwd=tmp_path, env=environment, text=True)

    return run


def calls(folder):
    """What audiobat was called with: rank, local rank, number of ranks, and words."""
    lines = [line for line in (folder / "calls").read_text().splitlines() if line]
    return [(line.split(" ")[:3], shlex.split(line.split(" audiobat ")[1])) for line in lines]


def check_call(words):
    """Flags and their values are those of the verb."""
    parse(words[0], words[1:])


@pytest.mark.parametrize("file", BATCH, ids=lambda path: path.name)
@pytest.mark.parametrize(
    ("code", "restarts", "again"), [(0, 0, False), (2, 0, False), (75, 9, True), (69, 0, None), (69, 3, False)]
)
def test_a_job_of_slurm_calls_audiobat_and_is_queued_again_where_that_helps(
    file, code, restarts, again, start, tmp_path
):
    again = file.stem == "pretrain" if again is None else again  # it alone has ranks that can be lost
    variables = {"SLURM_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3", "SLURM_RESTART_COUNT": str(restarts)}
    assert start(file.read_text(), CODE=str(code), **variables).wait(60) == code
    ((_, words),) = calls(tmp_path)
    check_call(words)
    requeued = tmp_path / "requeued"
    assert (requeued.read_text() if requeued.exists() else "") == ("requeue 7\n" if again else "")


@pytest.mark.parametrize("file", BATCH, ids=lambda path: path.name)
def test_options_of_sbatch_stand_before_the_first_command_and_signal_the_ranks(file):
    text = file.read_text()
    options = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?$", text, re.MULTILINE))
    assert options.keys() <= OPTIONS
    assert len(options) == text.count("#SBATCH")
    assert re.fullmatch(r"USR1@\d+", options["signal"])  # a B: would signal the script alone, which bash would die of
    assert text.rindex("#SBATCH") < text.index("\nsrun ")  # sbatch reads none behind a command


@pytest.mark.parametrize("file", MANIFESTS, ids=lambda path: path.name)
def test_a_job_of_kubernetes_treats_exit_codes_by_what_they_mean(file):
    job = next(part for part in yaml.safe_load_all(file.read_text()) if part["kind"] == "Job")
    assert job["apiVersion"] == "batch/v1"
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    rules = spec["podFailurePolicy"]["rules"]
    codes = [rule["onExitCodes"] for rule in rules if "onExitCodes" in rule]
    assert all(found["containerName"] == container["name"] for found in codes)
    actions = {
        code: rule["action"] for rule in rules if "onExitCodes" in rule for code in rule["onExitCodes"]["values"]
    }
    assert actions == {2: "FailJob", 75: "Ignore"}
    assert (spec["completionMode"], pod["restartPolicy"]) == ("Indexed", "Never")
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def container_of(name):
    parts = list(yaml.safe_load_all((FOLDER / f"{name}.yaml").read_text()))
    job = next(part for part in parts if part["kind"] == "Job")
    return parts, job, job["spec"]["template"]["spec"]["containers"][0]


@pytest.mark.parametrize("name", ["prepare", "probes"])
def test_each_pod_does_its_own_part(name, start, tmp_path):
    _, job, container = container_of(name)
    assert container["command"] == ["bash", "-c"]
    for index in range(job["spec"]["completions"]):
        assert start(container["args"][0], JOB_COMPLETION_INDEX=str(index), CODE="75").wait(60) == 75
    found = [words for _, words in calls(tmp_path)]
    assert len({tuple(words) for words in found}) == job["spec"]["completions"]
    for words in found:
        check_call(words)


def test_the_pods_of_a_training_start_every_rank_once_where_they_can_meet(start, tmp_path):
    (service, job), _, container = container_of("pretrain")
    variables = {each["name"]: each["value"] for each in container["env"]}
    for pod in range(job["spec"]["completions"]):
        assert start(container["args"][0], JOB_COMPLETION_INDEX=str(pod), CODE="2", **variables).wait(60) == 2
    ranks = [rank for rank, _ in calls(tmp_path)]
    gpus = container["resources"]["limits"]["nvidia.com/gpu"]
    assert sorted(ranks) == [[str(rank), str(rank % gpus), "8"] for rank in range(8)]
    for _, words in calls(tmp_path):
        check_call(words)
    subdomain = job["spec"]["template"]["spec"]["subdomain"]
    assert (service["metadata"]["name"], service["spec"]["clusterIP"]) == (subdomain, "None")
    assert variables["MASTER_ADDR"] == f"{job['metadata']['name']}-0.{subdomain}"


def test_sigterm_to_a_pod_reaches_its_ranks_whose_exit_code_it_ends_with(start, tmp_path):
    _, _, container = container_of("pretrain")
    variables = {each["name"]: each["value"] for each in container["env"]}
    pod = start(container["args"][0], JOB_COMPLETION_INDEX="0", WAITS="yes", **variables)
    until = time.monotonic() + 60
    while not (tmp_path / "calls").exists() or len(calls(tmp_path)) < 4:
        assert time.monotonic() < until
        time.sleep(0.05)
    pod.send_signal(signal.SIGTERM)
    assert pod.wait(60) == 75
