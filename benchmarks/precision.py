"""Do the loss curves of bfloat16 and float32 agree on the built-in cohort, within the noise between seeds?

    python -m benchmarks.precision [--precision_seeds=3] [--precision_steps=120] [--networks=switch8x2] [--quick]

Trains end to end on the built-in caudate cohort, without augmentation, every seed in both precisions; writes the
curves, and how far apart the two are at the end against how far apart seeds are.
"""

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from numpy.typing import NDArray

from benchmarks import flags as common_flags
from benchmarks.measure import environment, write_result
from tlseg_jax.datasets.lookup import get_spec
from tlseg_jax.models.networks import get_network
from tlseg_jax.runtime.files import lock_folder
from tlseg_jax.runtime.messages import quiet
from tlseg_jax.studies.workplace import Workplace, open_store
from tlseg_jax.train.job import train_job
from tlseg_jax.train.job_settings import JobSettings
from tlseg_jax.train.recipes import get_recipe

flags.adopt_module_key_flags(common_flags)  # so that --help lists them
SEEDS = flags.DEFINE_integer("precision_seeds", 3, "Runs in each precision.", lower_bound=2)
STEPS = flags.DEFINE_integer("precision_steps", None, "Of each run; default: 120, at reduced sizes 40.", lower_bound=8)
WORKDIR = flags.DEFINE_string(
    "precision_workdir", None, "Keeps the cohort and the runs, which then go on where they were stopped."
)

PRECISIONS = ("float32", "bfloat16")


def curves(workdir: Path, network: str, seeds: int, steps: int) -> dict[str, NDArray[np.float64]]:
    """Train every seed in both precisions, in turn.

    Args:
      workdir: holds the cohort and the runs, or will.
      network: its name.
      seeds: runs in each precision.
      steps: of each run.

    Returns:
      Precision -> losses, (seeds, steps).
    """
    store = open_store(Workplace(workdir, progress=False), get_spec("hdt_c"))
    recipe = dataclasses.replace(
        get_recipe("default"), intensity_augmentation=False, affine_augmentation=False, elastic_augmentation=0.0
    )
    found: dict[str, list[list[float]]] = {p: [] for p in PRECISIONS}
    for seed in range(seeds):
        for precision in PRECISIONS:
            config = dataclasses.replace(get_network(network), dtype=precision)
            folder = workdir / "precision" / f"{network}-{precision}-{steps}-seed{seed}"
            with lock_folder(folder), quiet():
                job = JobSettings(config, recipe, steps, seed=seed)
                fit = train_job(store, job, folder, progress=False)
            found[precision].append([loss for _, loss in fit.losses])
            print(f"{network}, {precision}, seed {seed}: last loss {fit.losses[-1][1]:.4f}", flush=True)
    return {p: np.array(v) for p, v in found.items()}


def agreement(float32: NDArray[np.float64], bfloat16: NDArray[np.float64]) -> dict[str, Any]:
    """Whether two sets of curves differ by more than seeds do, over the last quarter of the steps.

    Args:
      float32: losses, (seeds, steps).
      bfloat16: losses of the same seeds, (seeds, steps).

    Returns:
      "difference": of the mean losses, bfloat16 - float32. "seed_noise": standard deviation between the seeds of
      float32. "within_noise": whether the former is at most twice the standard error that the seeds of both give it.
      "same_seed": the mean distance between the two curves of a seed, step by step, and "other_seed": between the
      float32 curves of two seeds.
    """
    last = slice(-max(float32.shape[1] // 4, 1), None)
    a, b = float32[:, last].mean(1), bfloat16[:, last].mean(1)
    error = float(np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / len(a)))
    pairs = [(i, j) for i in range(len(a)) for j in range(i)]
    difference = float(b.mean() - a.mean())
    return {
        "float32": float(a.mean()),
        "bfloat16": float(b.mean()),
        "difference": difference,
        "seed_noise": float(a.std(ddof=1)),
        "within_noise": bool(abs(difference) <= 2 * error),
        "same_seed": float(np.abs(float32[:, last] - bfloat16[:, last]).mean()),
        "other_seed": float(np.mean([np.abs(float32[i, last] - float32[j, last]).mean() for i, j in pairs])),
    }


def main() -> None:
    """Parse the flags, train, print and write how far apart the curves are."""
    before, reduced = environment(), common_flags.quick()
    steps = STEPS.value or (40 if reduced else 120)
    cases: list[dict[str, Any]] = []
    all_curves: dict[str, dict[str, list[list[float]]]] = {}
    names: Sequence[str] = common_flags.networks(["switch8x2"] if reduced else ["switch32", "switch8x2"])
    with tempfile.TemporaryDirectory() as scratch:
        for network in names:
            found = curves(Path(WORKDIR.value or scratch), network, SEEDS.value, steps)
            case = agreement(found["float32"], found["bfloat16"])
            cases.append({"network": network, "seeds": SEEDS.value, "steps": steps} | case)
            all_curves[network] = {p: np.round(v, 5).tolist() for p, v in found.items()}
            print(
                f"{network}: the loss ends at {case['float32']:.4f} in float32 and {case['bfloat16']:.4f} in bfloat16; "
                f"seeds differ by {case['seed_noise']:.4f}: {'within' if case['within_noise'] else 'beyond'} noise. "
                f"Curves of one seed are {case['same_seed']:.4f} apart, of two seeds {case['other_seed']:.4f}."
            )
    result = {
        "question": "loss curves of bfloat16 and float32 on the built-in cohort of drawn heads (synthetic)",
        "sizes": "reduced" if reduced else "full",
        "cases": cases,
        "environment": before,
        "curves": all_curves,
    }
    write_result("precision", result, common_flags.OUT.value)


if __name__ == "__main__":
    common_flags.run(main)
