"""Compare models A, B and C of the liver report: from scratch, pre-trained, pre-trained with first layers frozen.

    python -m experiments.compare --study=liver [--store=DIR --pretask=NAME --task=NAME] [--n=1,2,4] [--seeds=3]

All models of one n and seed see the same volumes in the same order. Runs that are done are reused; a call
that was stopped goes on. The result is a folder with tables, figures and `comparison.md`.
"""

import dataclasses
from pathlib import Path

from absl import flags

from experiments import cli, cluster_flags, compilation_flags, execution_flags, pretrained, training_flags
from tlseg_jax.datasets.slice_spec import SliceSpec
from tlseg_jax.evaluate.run_tables import MODELS, CompareRun
from tlseg_jax.report.compare_report import write_comparison
from tlseg_jax.runtime import elsewhere
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import lock_folder
from tlseg_jax.studies import compare
from tlseg_jax.studies.workplace import Workplace, named_spec, open_store
from tlseg_jax.train.job_settings import JobSettings
from tlseg_jax.train.remedies import without_remedies

STUDY = flags.DEFINE_enum("study", "liver", ["liver"], "Which paper's comparison.")
PRETASK = flags.DEFINE_string("pretask", "lits", "What models B and C start from: a data set of slices.")
TASK = flags.DEFINE_string("task", "mri_artery", "The target: a data set of slices.")
N = flags.DEFINE_list("n", [], "Labelled volumes of the target, one or several numbers; none: all.")
SEEDS = flags.DEFINE_integer("seeds", 3, "Runs of each model, with the seeds 0, 1, ...", lower_bound=1)
FREEZE = flags.DEFINE_enum("freeze", "first_two", ["first_two", "first_two_convolutions", "encoder"], "Model C's.")
NAME = flags.DEFINE_string("name", None, "Name of the comparison's folder, in place of one made from the settings.")

for module in (training_flags, execution_flags, pretrained):
    flags.adopt_module_key_flags(module)  # so that --help lists them


def main() -> None:
    """Parse the flags, train what is missing, and write the comparison."""
    cluster_flags.refuse("compare in one, or pre-train in several first (experiments.pretrain)")
    execution = execution_flags.execution()
    compilation_flags.use_cache()
    place = training_flags.workplace()
    task, pretask = named_spec(place, TASK.value), named_spec(place, PRETASK.value)
    if not isinstance(task, SliceSpec) or not isinstance(pretask, SliceSpec):
        raise InputError("--study=liver compares 2D models: --task and --pretask must be data sets of slices.")
    store = open_store(place, task)
    source = open_store(place, pretask)
    if pretrained.PRETRAINED.value:
        start: Path | None = cli.run_folder(pretrained.PRETRAINED.value)
    else:
        start = pretrained.pretrained(place, PRETASK.value, pretask, execution)
    runs = [
        _run(place, task, pretask.name, start, model, n, seed)
        for n in _numbers() for seed in range(SEEDS.value) for model in MODELS
    ]  # fmt: skip
    assert isinstance(store, compare.SliceStore) and isinstance(source, compare.SliceStore)
    runs = compare.own_folders(runs, store, place.say)
    if start is None or execution.dry_run:
        compare.dry_run(place, store, start, runs, execution)
        return
    parts = [f"{pretask.name}-to-{task.name}", *(["n" + "_".join(N.value)] if N.value else [])]
    name = NAME.value or training_flags.run_name(task, *parts, ending=f"seeds{SEEDS.value}")
    folder = place.workdir / "compare" / name
    with lock_folder(folder):
        done = compare.train_all(place, store, source, start, runs, execution)
        settings = {
            "pre-trained model": elsewhere.current().name(start), "task": store.where, "pre-task": source.where,
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


def _numbers() -> list[int | None]:
    try:
        return [int(n) for n in N.value] or [None]
    except ValueError:
        raise InputError(f"--n={','.join(N.value)} must be whole numbers, as in 1,2,4.") from None


def _run(
    place: Workplace, task: SliceSpec, source: str, start: Path | None, model: str, n: int | None, seed: int
) -> compare.Planned:
    freeze = FREEZE.value if model == "C" else "none"
    job: JobSettings = training_flags.job(
        task, "finetune", training_flags.STEPS.value, epochs=training_flags.EPOCHS.value, n=n, freeze=freeze
    )
    if model == "A":  # a remedy needs a pre-trained start
        job = dataclasses.replace(job, recipe=without_remedies(job.recipe))
    parts = [f"{'none' if model == 'A' else source}-to-{task.name}", "all" if n is None else f"n{n}"]
    if model == "B" or freeze not in ("none", "first_two"):  # as `finetune` names it
        parts.append(f"freeze_{freeze}")
    name = training_flags.run_name(task, *parts, ending=f"seed{seed}", remedies=model != "A")
    return compare.Planned(
        model, dataclasses.replace(job, seed=seed), place.workdir / "finetune" / name, None if model == "A" else start
    )


if __name__ == "__main__":
    cli.run(main)
