"""Compare models A, B and C of the liver report: from scratch, pre-trained, pre-trained with first layers frozen.

    python -m experiments.compare --study=liver [--store=DIR --pretask=NAME --task=NAME] [--n=1,2,4] [--seeds=3]

All models of one n and seed see the same volumes in the same order. Runs that are done are reused; a call
that was stopped goes on. The result is a folder with tables, figures and `comparison.md`.
"""

import dataclasses
from pathlib import Path
from typing import Any

from absl import flags

from experiments import cli, cluster_flags, compilation_flags, execution_flags, place_flags, training_flags
from tlseg_jax.commands import flags as settings_flags
from tlseg_jax.datasets.slice_spec import SliceSpec
from tlseg_jax.evaluate.run_tables import MODELS, CompareRun
from tlseg_jax.remote.address import shown
from tlseg_jax.report.compare_report import write_comparison
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import lock_folder
from tlseg_jax.studies import compare
from tlseg_jax.studies.jobs import make_job, run_name
from tlseg_jax.studies.pretrained import pretrained_run
from tlseg_jax.studies.settings import Finetuning, Missing, Start
from tlseg_jax.studies.study import Study
from tlseg_jax.studies.workplace import Workplace, named_spec, open_store
from tlseg_jax.train.remedies import without_remedies

STUDY = flags.DEFINE_enum("study", "liver", ["liver"], "Which paper's comparison.")
PRETASK = flags.DEFINE_string("pretask", "lits", "What models B and C start from: a data set of slices.")
TASK = flags.DEFINE_string("task", "mri_artery", "The target: a data set of slices.")
SEEDS = flags.DEFINE_integer("seeds", 3, "Runs of each model, with the seeds 0, 1, ...", lower_bound=1)
MISSING = settings_flags.define(Missing)
PRETRAINED = settings_flags.define(Finetuning, only=("pretrained",))
N = settings_flags.define(Study, only=("n",), absent="all")
FREEZE = flags.DEFINE_enum("freeze", "first_two", ["first_two", "first_two_convolutions", "encoder"], "Model C's.")
NAME = flags.DEFINE_string("name", None, "Name of the comparison's folder, in place of one made from the settings.")

settings_flags.adopt(training_flags, execution_flags)


def main() -> None:
    """Parse the flags, train what is missing, and write the comparison."""
    cluster_flags.refuse("compare in one, or pre-train in several first (experiments.pretrain)")
    execution = execution_flags.execution()
    compilation_flags.use_cache()
    place = place_flags.workplace()
    task, pretask = named_spec(place, TASK.value), named_spec(place, PRETASK.value)
    if not isinstance(task, SliceSpec) or not isinstance(pretask, SliceSpec):
        raise InputError("--study=liver compares 2D models: --task and --pretask must be data sets of slices.")
    store = open_store(place, task)
    source = open_store(place, pretask)
    given, training = PRETRAINED.value("pretrained"), training_flags.training()
    if given:
        start: Path | None = cli.run_folder(given)
    else:
        start = pretrained_run(place, PRETASK.value, pretask, training, MISSING.settings(), execution)
    runs = [
        _run(place, task, pretask.name, start, model, n, seed)
        for n in N.given().get("n", (None,)) for seed in range(SEEDS.value) for model in MODELS
    ]  # fmt: skip
    assert isinstance(store, compare.SliceStore) and isinstance(source, compare.SliceStore)
    runs = compare.own_folders(runs, store, place.say)
    if start is None or execution.dry_run:
        compare.dry_run(place, store, start, runs, execution)
        return
    numbers = "_".join(str(v or "all") for v in N.given().get("n", ()))
    parts = [f"{pretask.name}-to-{task.name}", *(["n" + numbers] if numbers else [])]
    name = NAME.value or run_name(task, training, *parts, ending=f"seeds{SEEDS.value}")
    folder = place.workdir / "compare" / name
    with lock_folder(folder):
        done = compare.train_all(place, store, source, start, runs, execution)
        settings = {
            "pre-trained model": shown(start), "task": shown(store.folder), "pre-task": shown(source.folder),
            "model C freezes": FREEZE.value, "seeds": SEEDS.value, "recipe": dataclasses.asdict(runs[-1].job.recipe),
            "length": f"{runs[0].job.steps} steps" if runs[0].job.steps else f"{runs[0].job.epochs} epochs",
            "sampling": runs[0].job.sampling,
        }  # fmt: skip
        page = write_comparison(
            folder, [CompareRun(r.model, r.job.seed, r.job.n, r.folder) for r in runs],
            start if done.source else None, done.target, done.source, done.examples, done.synthetic, settings,
        )  # fmt: skip
    print(page.read_text(encoding="utf-8"))
    print(f"comparison: {folder}")


def _run(
    place: Workplace, task: SliceSpec, source: str, start: Path | None, model: str, n: int | None, seed: int
) -> compare.Planned:
    freeze: Any = FREEZE.value if model == "C" else "none"
    training = dataclasses.replace(training_flags.training(), n=n)
    job = make_job(place, task, "finetune", training, Start(freeze))
    if model == "A":  # a remedy needs a pre-trained start
        job = dataclasses.replace(job, recipe=without_remedies(job.recipe))
    parts = [f"{'none' if model == 'A' else source}-to-{task.name}", "all" if n is None else f"n{n}"]
    if model == "B" or freeze not in ("none", "first_two"):  # as `finetune` names it
        parts.append(f"freeze_{freeze}")
    name = run_name(task, training, *parts, ending=f"seed{seed}", remedies=model != "A")
    return compare.Planned(
        model, dataclasses.replace(job, seed=seed), place.workdir / "finetune" / name, None if model == "A" else start
    )


if __name__ == "__main__":
    cli.run(main)
