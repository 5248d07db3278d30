"""How long does the default command take from its start to its first training step, the first time and after that?

    python -m benchmarks.startup [--startup_workdir=DIR] [--rounds=3]

Runs `python -m experiments.finetune --pretask=hdt_v --n=16` in processes of its own, with data and pre-trained model
made before: first with an empty compilation cache, then with the one that the first start left, and without any, in
turn. The time counts from the end of the imports until the loss of the first step has been read.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from absl import flags

from benchmarks import flags as common_flags
from benchmarks.measure import environment, summary, write_result

flags.adopt_module_key_flags(common_flags)  # so that --help lists them
WORKDIR = flags.DEFINE_string(
    "startup_workdir", None, "Keeps the built-in cohort and the pre-trained model for another time; none: made anew."
)

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = ("--pretask=hdt_v", "--n=16", "--pretrain_steps=2")

CHILD = """
import time
begin = time.perf_counter()
import json, os, sys
import tqdm
import tensorboardX
from tlseg_jax.commands import cli, finetune
imported = time.perf_counter()
going_on = tqdm.tqdm.update

def update(bar, *n):
    # The loop moves its bar when it has read a step's loss.
    if bar.unit == "step":
        done = time.perf_counter()
        print("\\nSTARTED", json.dumps({"imports": imported - begin, "first_step": done - imported}), flush=True)
        os._exit(0)
    return going_on(bar, *n)

tqdm.tqdm.update = update
cli.run(finetune.main)
"""
"""The command, stopped after its first step. tensorboardX is imported early, as it imports PyTorch where that is."""


def start(workdir: Path, cache: str) -> dict[str, float]:
    """Start the command once, in a run folder that is removed again.

    Args:
      workdir: holds the data and the pre-trained model.
      cache: value of --compilation_cache.

    Returns:
      Seconds of the imports, and from there to the first step.

    Raises:
      RuntimeError: the command failed.
    """
    name = "startup"
    shutil.rmtree(workdir / "finetune" / name, ignore_errors=True)
    done = _run(["-c", CHILD, *SETTINGS, f"--workdir={workdir}", f"--name={name}", f"--compilation_cache={cache}"])
    shutil.rmtree(workdir / "finetune" / name, ignore_errors=True)
    lines = [line for line in done.splitlines() if line.startswith("STARTED ")]
    if not lines:
        raise RuntimeError(f"The command reached no step: {done[-2000:]}")
    return dict(json.loads(lines[-1].removeprefix("STARTED ")))


def measure(workdir: Path, rounds: int) -> dict[str, Any]:
    """Seconds of the first start, of later ones, and of those that keep nothing.

    Args:
      workdir: holds the data and the pre-trained model, or will.
      rounds: later starts, in turn with and without a cache.

    Returns:
      Name -> {"imports", "first_step"} -> summary.
    """
    _run(["-m", "experiments.finetune", *SETTINGS, f"--workdir={workdir}", "--steps=1", "--name=made"])
    with tempfile.TemporaryDirectory() as folder:
        found = {"first": [start(workdir, folder)], "later": [], "without": []}
        for _ in range(rounds):
            found["later"].append(start(workdir, folder))
            found["without"].append(start(workdir, "off"))
    parts = ("imports", "first_step")
    return {name: {part: summary([r[part] for r in rows]) for part in parts} for name, rows in found.items()}


def _run(arguments: list[str]) -> str:
    env = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=env | {"PYTHONPATH": str(ROOT)},
    )
    if done.returncode:
        raise RuntimeError(f"The command failed: {done.stderr[-2000:]}")
    return done.stdout


def main() -> None:
    """Parse the flags, start the command often, print and write the seconds."""
    before = environment()
    rounds = common_flags.rounds() if flags.FLAGS["rounds"].present else 3
    with tempfile.TemporaryDirectory() as scratch:
        starts = measure(Path(WORKDIR.value or scratch), rounds)
    for name, row in starts.items():
        imports, step = row["imports"]["median"], row["first_step"]["median"]
        print(f"{name:<8} imports {imports:.2f} s, first step after {step:.2f} s")
    path = write_result(
        "startup",
        {
            "question": "seconds of the imports, and from there to the first step, by what the compilation cache held",
            "settings": SETTINGS,
            "cases": [
                {"start": name} | {k: round(v["median"], 2) for k, v in row.items()} for name, row in starts.items()
            ],
            "starts": starts,
            "environment": before,
        },
        common_flags.OUT.value,
    )
    print(f"written to {path.parent}")


if __name__ == "__main__":
    common_flags.run(main)
