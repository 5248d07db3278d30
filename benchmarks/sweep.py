"""How long does a study take as one sweep, and how long cell by cell, each by a command of its own?

    python -m benchmarks.sweep [--sweep_workdir=DIR]

The built-in brain study with two methods, n = 2 and 4, one seed, `switch8x2`, few steps. The data are made before.
"One at a time" are the commands that a user would give without the sweep: `experiments.pretrain`, then
`experiments.finetune --pretrained=RUN` for each cell, streamed, each compiling for itself, without figures left out.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from absl import flags

from benchmarks import flags as common_flags
from benchmarks.measure import environment, write_result

flags.adopt_module_key_flags(common_flags)
WORKDIR = flags.DEFINE_string("sweep_workdir", None, "Keeps the built-in cohort for another time; none: made anew.")

ROOT = Path(__file__).resolve().parents[1]
N, SEEDS = (2, 4), (0,)
STEPS, PRETRAIN_STEPS = 40, 40
COMMON = ("--network=switch8x2", "--cohort_train=8", "--cohort_test=2")
PLAIN = ("--nointensity_augmentation", "--noaffine_augmentation", "--elastic_augmentation=0")
SWEEP = (
    "experiments.sweep",
    "--study=brain",
    "--methods=HDT-V-FT,HDT-C-E2E",
    f"--n={','.join(map(str, N))}",
    f"--seeds={len(SEEDS)}",
    f"--steps={STEPS}",
    f"--pretrain_steps={PRETRAIN_STEPS}",
    *COMMON,
)


def run(module: str, *arguments: str) -> float:
    """Seconds of a command.

    Raises:
      RuntimeError: it failed.
    """
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{module} failed: {done.stderr[-2000:]}")
    return time.perf_counter() - start


def measure(workdir: Path) -> dict[str, Any]:
    """Seconds of both ways, the data being there."""
    place = f"--workdir={workdir}"
    run(*SWEEP, place, "--plan")  # makes the data
    for made in ("sweep", "pretrain", "finetune"):
        shutil.rmtree(workdir / made, ignore_errors=True)
    together = run(*SWEEP, place)
    pretrain = run("experiments.pretrain", "--pretask=hdt_v", f"--steps={PRETRAIN_STEPS}", place, *COMMON, *PLAIN)
    (start,) = (workdir / "pretrain").iterdir()
    alone = {"pretrain": pretrain}
    for n in N:
        for seed in SEEDS:
            for method, given in (("HDT-V-FT", f"--pretrained={start}"), ("HDT-C-E2E", "--pretask=none")):
                alone[f"{method}, n = {n}, seed {seed}"] = run(
                    "experiments.finetune",
                    given,
                    f"--n={n}",
                    f"--seed={seed}",
                    f"--steps={STEPS}",
                    place,
                    *COMMON,
                    *PLAIN,
                )
    total = sum(alone.values())
    return {
        "runs": len(alone),
        "steps": STEPS,
        "sweep_seconds": round(together, 1),
        "one_at_a_time_seconds": round(total, 1),
        "ratio": round(together / total, 3),
        "each": {k: round(v, 1) for k, v in alone.items()},
    }


def main() -> None:
    """Run the study both ways, print and write the seconds."""
    before = environment()
    with tempfile.TemporaryDirectory() as scratch:
        case = measure(Path(WORKDIR.value or scratch))
    print(
        f"{case['runs']} runs: {case['sweep_seconds']:.0f} s as a sweep, {case['one_at_a_time_seconds']:.0f} s one at "
        f"a time: {case['ratio']:.2f}"
    )
    path = write_result(
        "sweep",
        {
            "question": "seconds of a study as one sweep and as one command a cell",
            "cases": [case],
            "environment": before,
        },
        common_flags.OUT.value,
    )
    print(f"written to {path.parent}")


if __name__ == "__main__":
    common_flags.run(main)
