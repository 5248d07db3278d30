"""One run as a user asks for it, found where it is done: pre-train a task, or fine-tune on one what that gives.

A pre-task's own model is the one that is there and is the same, or else trained now.
"""

import dataclasses
from pathlib import Path

from tlseg_jax.checkpoints.run_folder import check_settings, differing, own_folder, read_json
from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.preprocess.store.store import is_prepared
from tlseg_jax.runtime import processes
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.messages import log
from tlseg_jax.studies.jobs import labelled_name, make_job, make_pretrain_job, run_name
from tlseg_jax.studies.runs import is_done, is_finished, own_tests, train_and_assess, unseen_tests
from tlseg_jax.studies.settings import Finetuning, Missing, Start, Training
from tlseg_jax.studies.workplace import Workplace, named_spec, open_store
from tlseg_jax.train.execution import Execution
from tlseg_jax.train.job_record import run_settings
from tlseg_jax.train.job_settings import JobSettings
from tlseg_jax.train.pretrained import Pretrained
from tlseg_jax.train.usual import usual_freeze
from tlseg_jax.transfer.restore import check_dimensions


def pretrain_task(place: Workplace, pretask: str, training: Training, execution: Execution) -> Path:
    """Pre-train a task with plenty of labels, and score it.

    Args:
      pretask: name of a data set, one of the store, or a TOML file.

    Returns:
      The run folder; of a dry run, where it would be.

    Raises:
      InputError: the data are missing, or a setting does not go with them.
    """
    spec = named_spec(place, pretask)
    job = make_job(place, spec, "pretrain", training)
    parts = [spec.name] if training.n is None else [spec.name, labelled_name(training.n)]
    folder = place.workdir / "pretrain" / run_name(spec, training, *parts)
    store = open_store(place, spec)
    folder = own_folder(folder, run_settings(store, job, None))
    return train_and_assess(place, store, job, folder, None, own_tests(store), execution)


def finetune_task(
    place: Workplace, what: Finetuning, training: Training, start: Start, missing: Missing, execution: Execution
) -> Path:
    """Fine-tune on the target's labelled scans, and score it; a pre-trained model that is missing is made first.

    The test sets are the task's own and, for the generalisation of caudates, OAS-C (section 2.3).

    Returns:
      The run folder; of a dry run, where it would be.

    Raises:
      InputError: nothing says what to start from, the data are missing, a setting does not go with them, or the
        pre-trained model cannot be read or does not fit.
    """
    task = named_spec(place, what.task)
    folder: Path | None = None
    pretask: DatasetSpec | None = None
    if what.pretrained:
        folder = Path(what.pretrained)
        source = folder.name
        log.info(f"pre-trained model: {folder}.")
    elif what.pretask == "none":
        source = "none"
    elif what.pretask:
        pretask = named_spec(place, what.pretask)
        if pretask.kind != task.kind:
            raise InputError(
                f"{pretask.name} is a data set of {pretask.kind} and {task.name} one of {task.kind}: a network of one "
                "cannot start from the other's; choose a `pretask` of the same kind."
            )
        source = pretask.name
    else:
        raise InputError(
            "`pretask` is missing: name what to start from, such as `pretask=hdt_v`, or `pretask=none` to train end "
            "to end."
        )
    if source == "none":  # there is nothing to keep
        start = dataclasses.replace(start, freeze="none")
    job = make_job(place, task, "finetune", training, start)
    parts = [f"{source}-to-{task.name}", labelled_name(training.n)]
    if source != "none" and job.freeze != usual_freeze(task, job.recipe.name):
        parts.append(f"freeze_{job.freeze}")
    run = place.workdir / "finetune" / (what.name or run_name(task, training, *parts))
    if what.name:  # before a pre-training for a run that would be refused
        processes.chief(lambda: check_settings(run, {"job": job.to_dict()}))
    if pretask and what.pretask:
        first = dataclasses.replace(place, adabn=0.0)  # that is for the target's scans
        folder = pretrained_run(first, what.pretask, pretask, training, missing, execution)
    model = Pretrained.load(folder) if folder else None
    if model:  # before any data are made
        check_dimensions(model.saved, job.network, str(model.run))
    store = open_store(place, task)
    tests = own_tests(store)
    if not what.name:  # a run of other settings goes beside one that is there
        run = own_folder(run, run_settings(store, job, model.record if model else None))
    unseen = [] if execution.dry_run else unseen_tests(place, store)
    return train_and_assess(place, store, job, run, model, [*tests, *unseen], execution, start_too=True)


def pretrained_run(
    place: Workplace, pretask: str, spec: DatasetSpec, training: Training, missing: Missing, execution: Execution
) -> Path | None:
    """The run folder of the pre-task's model: that of these settings and data if it has finished, else trained now.

    One of other settings stays where it is, and is not used. For the arguments see `jobs.make_pretrain_job`; `pretask`
    is as the user named it.

    Returns:
      The folder; None where a dry run found none.

    Raises:
      InputError: the data are missing, or a setting does not go with them.
    """
    folder = place.workdir / "pretrain" / run_name(spec, training, spec.name, remedies=False)
    job = make_pretrain_job(place, spec, training, missing)
    kept = kept_pretraining(place, spec, job, folder)
    if kept:
        log.info(f"{spec.name}: reusing the pre-trained model {kept}.")
        return kept
    # A dry run that finds none draws no cohort for it.
    if not execution.dry_run or any(folder.parent.glob(f"{folder.name}*/settings.json")):
        store = open_store(place, spec)
        settings = run_settings(store, job, None)
        folder = own_folder(folder, settings)
        tests = [store] if store.subjects("test") else []
        if processes.chief(lambda: is_done(place, folder, settings, tests)):
            log.info(f"{spec.name}: reusing the pre-trained model {folder}.")
            return folder
    if execution.dry_run:
        length = f"{job.steps} steps" if job.steps else f"{job.epochs} epochs"
        log.info(
            f"{spec.name}: no finished pre-trained model in {folder}; one would be trained first, for {length} "
            f"('tlseg pretrain --pretask={pretask} --dry_run' tells what that takes)."
        )
        return None
    if processes.chief(lambda: is_finished(folder, 1)):
        log.info(f"{spec.name}: the pre-trained model {folder} is scored again, as its test set is another now.")
    else:
        log.info(f"{spec.name}: no finished pre-trained model in {folder}; training one.")
    return train_and_assess(place, store, job, folder, None, own_tests(store), execution)


def kept_pretraining(place: Workplace, spec: DatasetSpec, job: JobSettings, folder: Path) -> Path | None:
    """The finished pre-training of these settings, where the user's store does not hold the pre-task (any more).

    Its data cannot be compared then; only drawn heads are told from scans.

    Returns:
      The run folder, which is `folder` or beside it; None where the store holds the pre-task, so that its data can be
      compared, or where there is no such run.

    Raises:
      InputError: there are several.
    """
    if place.store is None or is_prepared(place.store / spec.name):
        return None

    ours = {"job": job.to_dict()}

    def look() -> list[str]:
        found = [f for f in (folder, *sorted(folder.parent.glob(f"{folder.name}-????????"))) if is_finished(f, 1)]
        real = [f for f in found if not read_json(f / "summary.json")["synthetic"]]
        return [str(f) for f in real if not differing(ours, {"job": read_json(f / "settings.json")["job"]})]

    found = processes.chief(look)
    if len(found) > 1:
        raise InputError(
            f"{place.store_name} holds no data set {spec.name}, and several models were pre-trained on one "
            f"({', '.join(found)}): name one with `pretrained`."
        )
    return Path(found[0]) if found else None
