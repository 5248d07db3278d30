"""What is in deploy/: flags that the commands have, numbers that agree, and what the scripts do with exit codes."""

import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.processes import python
from tlseg_jax.commands.cli import EXIT_INPUT, EXIT_PREEMPTED

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
SCRIPTS = sorted(DEPLOY.glob("slurm_*.sh"))
DOCKERFILES = sorted(DEPLOY.glob("Dockerfile.*"))
YAML_FILES = sorted(DEPLOY.glob("*.yaml"))
TEXTS = [*SCRIPTS, *DOCKERFILES, *YAML_FILES, DEPLOY / "README.md"]


def commands(text: str) -> dict[str, set[str]]:
    """Command -> its flags, wherever one is named: on one line, on continued ones, or as a list in YAML."""
    joined = re.sub(r"\\\n\s*", " ", text)
    joined = re.sub(r"\n\s+- (?=--|experiments\.)", " ", joined)
    found: dict[str, set[str]] = {}
    for line in joined.splitlines():
        for match in re.finditer(r"\bexperiments\.(\w+)((?:(?!\bexperiments\.).)*)", line):
            given = match[2].split(" -- ")[0]
            found.setdefault(match[1], set()).update(re.findall(r"(?<=[ \"])--(\w+)", given))
    return found


def wanted_flags() -> dict[str, set[str]]:
    every: dict[str, set[str]] = {}
    for path in TEXTS:
        for name, given in commands(path.read_text()).items():
            every.setdefault(name, set()).update(given)
    return every


def test_the_commands_are_found_in_every_kind_of_file() -> None:
    wanted = wanted_flags()
    assert wanted.keys() == {"prepare", "pretrain", "finetune", "launch"}
    assert {"shard", "dataset", "workers"} <= wanted["prepare"] and wanted["launch"] == {"hosts", "devices_per_host"}
    assert {"store", "workdir", "batch_size"} <= commands((DEPLOY / "gke_job.yaml").read_text())["pretrain"]
    assert {"n", "seed", "task"} <= commands((DEPLOY / "slurm_array.sh").read_text())["finetune"]
    assert commands("x\n") == {}


@pytest.mark.parametrize("command", ["prepare", "pretrain", "finetune", "launch"])
def test_every_flag_exists(command: str) -> None:
    shown = python("-m", f"experiments.{command}", "--help").stdout
    there = set(re.findall(r"^\s+--(?:\[no\])?(\w+)", shown, re.MULTILINE))
    assert len(there) > 2
    assert wanted_flags()[command] - {"help"} <= there


@pytest.mark.parametrize("path", [*SCRIPTS, DEPLOY / "requeue.sh"], ids=lambda p: p.name)
def test_bash_reads_the_scripts(path: Path) -> None:
    done = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def linter(name: str) -> str:
    """A linter's path; it comes with a package of the index and not with ours."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed here")
    return found


@pytest.mark.parametrize(
    ("name", "arguments", "paths"),
    [
        ("shellcheck", ["-x"], [*SCRIPTS, DEPLOY / "requeue.sh"]),
        ("hadolint", [], DOCKERFILES),
        ("kubernetes-validate", ["--strict", "--no-warn"], YAML_FILES),
    ],
)
def test_a_linter_finds_nothing(name: str, arguments: list[str], paths: list[Path]) -> None:
    done = subprocess.run(
        [linter(name), *arguments, *(str(p.relative_to(ROOT)) for p in paths)], cwd=ROOT, capture_output=True, text=True
    )
    assert paths and done.returncode == 0, done.stdout + done.stderr


def documents(name: str) -> dict[str, Any]:
    """Kind -> document of a YAML file."""
    return {d["kind"]: d for d in yaml.safe_load_all((DEPLOY / name).read_text())}


@pytest.mark.parametrize("name", [p.name for p in YAML_FILES])
def test_jobs_are_indexed_and_know_our_exit_codes(name: str) -> None:
    job = documents(name)["Job"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    assert job["completionMode"] == "Indexed" and job["parallelism"] <= job["completions"]
    assert pod["restartPolicy"] == "Never"  # or there may be no podFailurePolicy
    codes = {
        rule["action"]: rule["onExitCodes"]["values"]
        for rule in job["podFailurePolicy"]["rules"]
        if rule.get("onExitCodes", {}).get("containerName") == container["name"]
    }
    assert codes == {"Ignore": [EXIT_PREEMPTED], "FailJob": [EXIT_INPUT]}
    mounted = {m["name"] for m in container["volumeMounts"]}
    assert mounted == {v["name"] for v in pod["volumes"]}
    assert "/cache" in {m["mountPath"] for m in container["volumeMounts"]}
    assert all("XDG_CACHE_HOME=/cache" in p.read_text() for p in DOCKERFILES)
    index = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    assert [e["name"] for e in container["env"] if e.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath") == index]


def test_the_hosts_find_the_first_of_them() -> None:
    found = documents("gke_job.yaml")
    job, service = found["Job"], found["Service"]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    env = {e["name"]: e.get("value") for e in container["env"]}
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == int(env["JAX_NUM_PROCESSES"])
    assert service["spec"]["clusterIP"] == "None" and service["spec"]["publishNotReadyAddresses"] is True
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": job["metadata"]["name"]}
    assert job["spec"]["template"]["spec"]["subdomain"] == service["metadata"]["name"]
    port = container["ports"][0]["containerPort"]
    assert env["JAX_COORDINATOR_ADDRESS"] == f"{job['metadata']['name']}-0.{service['metadata']['name']}:{port}"
    devices = int(env["JAX_NUM_PROCESSES"]) * int(container["resources"]["limits"]["nvidia.com/gpu"])
    batch = next(int(a.partition("=")[2]) for a in container["args"] if a.startswith("--batch_size="))
    assert batch % devices == 0


def test_there_are_as_many_shards_as_pods() -> None:
    job = documents("gke_prepare.yaml")["Job"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    env = {e["name"]: e.get("value") for e in container["env"]}
    assert int(env["SHARDS"]) == job["completions"] and "--shard=$(SHARD)/$(SHARDS)" in container["args"]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda p: p.name)
def test_images_install_what_the_project_has(path: Path) -> None:
    text = path.read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extra = re.search(r'pip install --no-cache-dir "\.\[(.+?)\]"', text)
    assert extra is not None
    name = re.search(r"^ARG CUDA=(\w+)", text, re.MULTILINE)[1] if "$" in extra[1] else extra[1]  # type: ignore[index]
    assert name in project["project"]["optional-dependencies"]
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    copied = [w for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE) for w in line.split()[:-1]]
    assert {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]} <= set(copied)
    assert "*" in ignored and {line[1:] for line in ignored if line.startswith("!")} == set(copied)
    packages = {p.rstrip("*") for p in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert packages <= set(copied)
    assert re.search(r"^USER [1-9]\d*$", text, re.MULTILINE) and '\nENTRYPOINT ["python", "-m"]\n' in text


@pytest.fixture
def cluster(tmp_path: Path) -> dict[str, str]:
    """An environment in which `srun` notes its command and ends with $CODE, and `scontrol` notes what it is asked."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, end in (("srun", 'exit "${CODE}"'), ("scontrol", "exit 0")):
        (folder / name).write_text(f'#!/usr/bin/env bash\necho "{name} $*" >>"${{CALLS}}"\n{end}\n')
        (folder / name).chmod(0o755)
    return {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "CALLS": str(tmp_path / "calls"),
        "SLURM_SUBMIT_DIR": str(ROOT),
        "SLURM_JOB_ID": "77",
        "SLURM_CPUS_PER_TASK": "3",
        "STORE": "/a store",
        "WORKDIR": "/runs",
        "DATASET": "hdt_v",
        "SOURCE": "/scans",
        "CODE": "0",
    }


def run(script: str, environment: dict[str, str], *arguments: str) -> tuple[int, list[str], str]:
    """Run a script of deploy/ as SLURM does, from a copy elsewhere; its exit code, the calls, and what it said."""
    copy = Path(environment["CALLS"]).with_name(script)
    shutil.copy(DEPLOY / script, copy)
    calls = Path(environment["CALLS"])
    calls.unlink(missing_ok=True)
    done = subprocess.run(["bash", str(copy), *arguments], env=environment, capture_output=True, text=True)
    return done.returncode, calls.read_text().splitlines() if calls.exists() else [], done.stdout + done.stderr


def array(environment: dict[str, str], task: int, most: int) -> dict[str, str]:
    return environment | {
        "SLURM_ARRAY_JOB_ID": "70",
        "SLURM_ARRAY_TASK_ID": str(task),
        "SLURM_ARRAY_TASK_MAX": str(most),
    }


def test_every_task_of_the_array_is_another_run(cluster: dict[str, str]) -> None:
    most = int(re.search(r"^#SBATCH --array=0-(\d+)", (DEPLOY / "slurm_array.sh").read_text(), re.M)[1])  # type: ignore[index]
    seen = []
    for task in range(most + 1):
        code, (call,), _ = run("slurm_array.sh", array(cluster, task, most), "--network=switch8x2")
        assert code == 0 and call.startswith("srun --ntasks=1 python -m experiments.finetune --pretask=hdt_v ")
        assert call.endswith("--store=/a store --workdir=/runs --network=switch8x2")
        seen.append(re.search(r"--n=(\d+) --seed=(\d+)", call).groups())  # type: ignore[union-attr]
    assert sorted(seen) == sorted(itertools.product(["2", "4", "8", "16"], ["0", "1", "2"]))
    few = cluster | {"NS": "4 8", "SEEDS": "5"}
    assert "--n=8 --seed=5" in run("slurm_array.sh", array(few, 1, 1))[1][0]
    code, calls, said = run("slurm_array.sh", array(few, 2, 5))
    assert (code, calls) == (0, []) and "tasks 0 to 1" in said


def test_every_task_prepares_its_shard(cluster: dict[str, str]) -> None:
    (call,) = run("slurm_prepare.sh", array(cluster, 2, 4))[1]
    assert "--dataset=hdt_v --source=/scans --store=/a store --shard=2/5 --workers=3" in call
    (call,) = run("slurm_prepare.sh", array(cluster | {"SHARDS": "16"}, 3, 7))[1]  # some tasks once more
    assert "--shard=3/16" in call


@pytest.mark.parametrize("script", [p.name for p in SCRIPTS])
@pytest.mark.parametrize("code", [0, EXIT_INPUT, EXIT_PREEMPTED, 1, 137])
def test_only_a_pre_empted_job_is_requeued(script: str, code: int, cluster: dict[str, str]) -> None:
    alone = script == "slurm_multihost.sh"
    given = cluster | {"CODE": str(code)}
    ended, calls, said = run(script, given if alone else array(given, 3, 7))
    assert ended == code, said
    job = "77" if alone else "70_3"  # never the array as a whole
    assert calls[1:] == ([f"scontrol requeue {job}"] if code == EXIT_PREEMPTED else [])


def test_a_script_that_is_signalled_too_still_requeues(cluster: dict[str, str]) -> None:
    """As where SLURM tells the whole job: the step ends with its code, and only then the script."""
    calls = Path(cluster["CALLS"])
    (calls.parent / "bin" / "srun").write_text(
        '#!/usr/bin/env bash\ntrap "exit 75" TERM\necho "srun $*" >>"${CALLS}"\nwhile :; do sleep 0.05; done\n'
    )
    process = subprocess.Popen(
        ["bash", str(DEPLOY / "slurm_multihost.sh")],
        env=cluster,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        while not calls.exists() or not calls.read_text().endswith("\n"):
            assert process.poll() is None
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == EXIT_PREEMPTED
    assert calls.read_text().splitlines()[1:] == ["scontrol requeue 77"]


def test_what_is_missing_is_said(cluster: dict[str, str]) -> None:
    needed = {"slurm_prepare.sh": "SOURCE", "slurm_array.sh": "STORE", "slurm_multihost.sh": "WORKDIR"}
    for script, name in needed.items():
        code, calls, said = run(script, array({k: v for k, v in cluster.items() if k != name}, 0, 0))
        assert code != 0 and calls == [] and f"{name}: folder" in said
