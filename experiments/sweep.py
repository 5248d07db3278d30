"""Run a study: every method by every number of labelled scans by every seed, each cell once, resumable.

    python -m experiments.sweep --study=brain|liver|factors|FILE.toml [--store=DIR] [--workdir=DIR] [--plan]

The cells are in WORKDIR/sweep/NAME, and results.csv there has a row a cell and subject, from which
`python -m experiments.report --workdir=WORKDIR` makes tables, figures and one page.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import jax
from absl import flags

from experiments import cli, cluster_flags, compilation_flags, evaluation_flags, execution_flags
from tlseg_jax.report.registry import check_sections
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.studies.plan import plan_sweep
from tlseg_jax.studies.study import Study, read_study_file
from tlseg_jax.studies.sweep import Sweep
from tlseg_jax.studies.workplace import Workplace
from tlseg_jax.train.dry_run import format_duration

STUDIES = Path(__file__).parent / "studies"

EXIT_CELLS = 3
"""Exit code where cells failed and the rest were finished."""

STUDY = flags.DEFINE_string("study", None, "brain, liver, factors, or a TOML file of your own.")
WORKDIR = flags.DEFINE_string("workdir", "runs", "Folder of the sweep, and of the built-in cohort where it is used.")
STORE = flags.DEFINE_string("store", None, "Folder of your prepared data sets; none: the built-in synthetic cohort.")
NAME = flags.DEFINE_string("name", None, "Name of the sweep's folder, in place of the study's.")
METHODS = flags.DEFINE_list("methods", [], "Some of the study's methods; none given: all.")
TASK = flags.DEFINE_string("task", None, "The target data set, in place of the study's.")
UNSEEN = flags.DEFINE_list("unseen", None, "Test sets of other sources, in place of the study's.")
PRETASK = flags.DEFINE_string("pretask", None, "What every pre-trained method starts from, in place of the study's.")
N = flags.DEFINE_list("n", [], "Numbers of labelled scans, in place of the study's; all: every training scan.")
SEEDS = flags.DEFINE_integer("seeds", None, "Runs a method and n, in place of the study's.", lower_bound=1)
FOLDS = flags.DEFINE_integer(
    "folds", None, "Cross-validation over persons: seed s is tested on fold s modulo this; 0: the prepared split.",
    lower_bound=0,
)  # fmt: skip
NETWORK = flags.DEFINE_string("network", None, "In place of the study's.")
RECIPE = flags.DEFINE_string("recipe", None, "default or paper, in place of the study's.")
STEPS = flags.DEFINE_integer("steps", None, "Of fine-tuning, in place of the study's.", lower_bound=1)
EPOCHS = flags.DEFINE_integer("epochs", None, "Slices: of fine-tuning, in place of the study's.", lower_bound=1)
PRETRAIN_STEPS = flags.DEFINE_integer("pretrain_steps", None, "In place of the study's.", lower_bound=1)
PRETRAIN_EPOCHS = flags.DEFINE_integer("pretrain_epochs", None, "Slices: in place of the study's.", lower_bound=1)
COHORT_TRAIN = flags.DEFINE_integer(
    "cohort_train", None, "Training subjects of the built-in cohort.", lower_bound=2
)
COHORT_TEST = flags.DEFINE_integer("cohort_test", None, "Test subjects of the built-in cohort.", lower_bound=1)
WORKERS = flags.DEFINE_integer("workers", 2, "Processes that draw and prepare the built-in cohort.", lower_bound=1)
PLAN = flags.DEFINE_bool(
    "plan", False, "Print the cells, what is done, and the time and memory of the rest; then stop."
)
DEVICES = flags.DEFINE_string("devices", "1", "How many devices run cells at the same time, or all.")
TOGETHER = flags.DEFINE_string(
    "together", "auto", "Cells of one program that train at once on a device; auto: what a few measured steps say."
)
DISTANCES = evaluation_flags.define_distances()
TILES = evaluation_flags.define_tiles()

for module in (evaluation_flags, execution_flags, compilation_flags):
    flags.adopt_module_key_flags(module)  # so that --help lists them


def main() -> None:
    """Parse the flags and run what is missing, or say what would be run."""
    cluster_flags.refuse(
        "give one all devices of its machine (--devices=all), or make its runs an array of experiments.finetune jobs"
    )
    flags.FLAGS["cache"].default = "auto"
    if not flags.FLAGS["cache"].present:
        flags.FLAGS["cache"].value = "auto"
    execution = execution_flags.execution()
    if execution.parallel in ("pmap", "mesh") or execution.mesh:
        raise InputError(
            "--parallel and --mesh are for single runs: a sweep trains a run on each device (--devices=N), "
            "and the sweep's cells give the same results for any number."
        )
    execution = dataclasses.replace(execution, parallel="one")
    if execution.dry_run or execution.profile:
        raise InputError("--dry_run and --profile are for single runs: give --plan to see what a sweep takes.")
    compilation_flags.use_cache()
    study = _study()
    place = Workplace(
        cli.workdir(WORKDIR.value), cli.store(STORE.value) if STORE.value else None, COHORT_TRAIN.value,
        COHORT_TEST.value,
        WORKERS.value, DISTANCES.value, evaluation_flags.tiles(TILES),
    )  # fmt: skip
    devices = _devices()
    together = _together()
    sweep = Sweep(place, study, execution_flags.PRECISION.value)
    if PLAN.value:
        plan_sweep(sweep, execution, len(devices), print)
        return
    swept = sweep.run(execution, devices=devices, together=together)
    print(f"{len(swept.done)} of {len(sweep.runs)} runs done; this call took {format_duration(swept.seconds)}.")
    print(f"sweep: {swept.folder}")
    if swept.failed:
        names = ", ".join(swept.failed)
        print(f"error: {len(swept.failed)} run(s) failed and the rest went on: {names}.", file=sys.stderr)
        raise SystemExit(EXIT_CELLS)


def _study() -> Study:
    """The study that the flags ask for.

    Raises:
      InputError: there is no such study, or a flag does not go with it.
    """
    wanted = cli.required(STUDY)
    built_in = {p.stem: p for p in sorted(STUDIES.glob("*.toml"))}
    if wanted not in built_in and not wanted.endswith(".toml"):
        names = ", ".join(built_in)
        raise InputError(f"There is no study named '{wanted}': choose from {names}, or give a .toml file.")
    study = read_study_file(built_in.get(wanted, Path(wanted)))
    check_sections((*study.sections, *study.titles))  # before hours of training
    if METHODS.value:
        study = study.with_methods(METHODS.value)
    if PRETASK.value:
        methods = (
            m if m.pretask == "none" else dataclasses.replace(m, pretask=PRETASK.value) for m in study.methods
        )
        study = dataclasses.replace(study, methods=tuple(methods))
    given: dict[str, Any] = {
        "name": NAME.value, "task": TASK.value, "seeds": SEEDS.value, "folds": FOLDS.value, "network": NETWORK.value,
        "recipe": RECIPE.value, "steps": STEPS.value, "epochs": EPOCHS.value, "pretrain_steps": PRETRAIN_STEPS.value,
        "pretrain_epochs": PRETRAIN_EPOCHS.value, "unseen": None if UNSEEN.value is None else tuple(UNSEEN.value),
        "n": _numbers() or None,
    }  # fmt: skip
    return dataclasses.replace(study, **{k: v for k, v in given.items() if v is not None})


def _numbers() -> tuple[int | None, ...]:
    try:
        numbers = tuple(None if n == "all" else int(n) for n in N.value)
    except ValueError:
        raise InputError(f"--n={','.join(N.value)} must be whole numbers or all, as in 2,4,8.") from None
    if any(n is not None and n < 1 for n in numbers):
        raise InputError(f"--n={','.join(N.value)} labelled scans is not usable: give 1 or more, or all.")
    return numbers


def _devices() -> list[jax.Device]:
    local = jax.local_devices()
    if DEVICES.value == "all":
        return local
    if not DEVICES.value.isdigit() or not 1 <= int(DEVICES.value) <= len(local):
        raise InputError(f"--devices={DEVICES.value} is not usable: give all, or 1 to {len(local)}.")
    return local[: int(DEVICES.value)]


def _together() -> int | None:
    if TOGETHER.value == "auto":
        return None
    if not TOGETHER.value.isdigit() or int(TOGETHER.value) < 1:
        raise InputError(f"--together={TOGETHER.value} is not usable: give auto, or 1 or more.")
    return int(TOGETHER.value)


if __name__ == "__main__":
    cli.run(main)
