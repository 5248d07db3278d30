"""Run a study: every method by every number of labelled scans by every seed, each cell once, resumable.

    python -m experiments.sweep --study=brain|liver|factors|FILE.toml [--store=DIR] [--workdir=DIR] [--plan]

The cells are in WORKDIR/sweep/NAME, and results.csv there has a row a cell, structure and subject, from which
`python -m experiments.report --workdir=WORKDIR` makes tables, figures and one page.
"""

import dataclasses
import sys
from pathlib import Path

import jax

from experiments import cli, cluster_flags, compilation_flags, place_flags
from tlseg_jax.commands import flags
from tlseg_jax.report.registry import check_sections
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.studies.choose_study import Sweeping, choose_study
from tlseg_jax.studies.ensemble import NAME as ENSEMBLE
from tlseg_jax.studies.ensemble import keep_ensemble
from tlseg_jax.studies.plan import plan_sweep
from tlseg_jax.studies.settings import Missing, Training
from tlseg_jax.studies.study import Study
from tlseg_jax.studies.sweep import Sweep
from tlseg_jax.train.dry_run import format_duration
from tlseg_jax.train.execution import Execution

STUDIES = Path(__file__).parent / "studies"

EXIT_CELLS = 3
"""Exit code where cells failed and the rest were finished."""

ASKED = flags.define(Sweeping)
IN_PLACE = " In place of the study's."
CHANGES = (
    flags.define(Study, only=("name", "task", "n", "seeds", "unseen", "folds"), absent="all", after=IN_PLACE),
    flags.define(Training, only=("network", "recipe", "steps", "epochs"), absent="all", after=IN_PLACE),
    flags.define(Missing, only=("pretrain_steps", "pretrain_epochs"), after=IN_PLACE),
)
PRECISION = flags.define(Training, only=("precision",))
EXECUTION = flags.define(Execution, defaults={"cache": "auto", "parallel": None})
flags.adopt(place_flags, compilation_flags)


def main() -> None:
    """Parse the flags and run what is missing, or say what would be run."""
    cluster_flags.refuse(
        "give one all devices of its machine (--devices=all), or make its runs an array of experiments.finetune jobs"
    )
    asked, execution = ASKED.settings(), EXECUTION.settings()
    if execution.parallel in ("pmap", "mesh") or execution.mesh:
        raise InputError(
            "--parallel and --mesh are for single runs: a sweep trains a run on each device (--devices=N), "
            "and the sweep's cells give the same results for any number."
        )
    execution = dataclasses.replace(execution, parallel="one")
    if execution.dry_run or execution.profile:
        raise InputError("--dry_run and --profile are for single runs: give --plan to see what a sweep takes.")
    compilation_flags.use_cache()
    changes = {field: value for some in CHANGES for field, value in some.given().items()}
    study = choose_study(asked, changes, STUDIES)
    check_sections((*study.sections, *study.titles))  # before hours of training
    place, devices = place_flags.workplace(), _devices(asked.devices)
    sweep = Sweep(place, study, PRECISION.value("precision"))
    if asked.plan:
        plan_sweep(sweep, execution, len(devices))
        return
    swept = sweep.run(execution, devices=devices, together=asked.together)
    print(f"{len(swept.done)} of {len(sweep.runs)} runs done; this call took {format_duration(swept.seconds)}.")
    print(f"sweep: {swept.folder}")
    together = keep_ensemble(swept.folder) if swept.done else None
    if together:
        print(
            f"ensemble: {len(together.cells)} seeds of {together.method} at n = {together.n}, the best by itself "
            f"(IoU {together.iou:.3f}): python -m experiments.predict --run={swept.folder / ENSEMBLE} --trust ..."
        )
    if swept.failed:
        names = ", ".join(swept.failed)
        print(f"error: {len(swept.failed)} run(s) failed and the rest went on: {names}.", file=sys.stderr)
        raise SystemExit(EXIT_CELLS)


def _devices(count: int | None) -> list[jax.Device]:
    """So many of this machine's devices; None: all.

    Raises:
      InputError: there are fewer.
    """
    local = jax.local_devices()
    if count is not None and count > len(local):
        raise InputError(f"--devices={count} is not usable: give all, or 1 to {len(local)}.")
    return local[:count]


if __name__ == "__main__":
    cli.run(main)
