"""One run as a user asks for it, found where it is done: pre-train a task, or fine-tune on one what that gives."""

import dataclasses
from pathlib import Path

from tlseg_jax.checkpoints.run_folder import check_settings, own_folder
from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.runtime import processes
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.messages import log
from tlseg_jax.studies.jobs import labelled_name, make_job, run_name
from tlseg_jax.studies.pretrained import pretrained_run
from tlseg_jax.studies.runs import finetune, pretrain
from tlseg_jax.studies.settings import Finetuning, Missing, Start, Training
from tlseg_jax.studies.workplace import Workplace, named_spec, open_store
from tlseg_jax.train.execution import Execution
from tlseg_jax.train.job_record import run_settings
from tlseg_jax.train.usual import usual_freeze


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
    return pretrain(place, pretask, job, folder, execution, store)


def finetune_task(
    place: Workplace, what: Finetuning, training: Training, start: Start, missing: Missing, execution: Execution
) -> Path:
    """Fine-tune on the target's labelled scans, and score it; a pre-trained model that is missing is made first.

    Returns:
      The run folder; of a dry run, where it would be.

    Raises:
      InputError: nothing says what to start from, the data are missing, or a setting does not go with them.
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
    return finetune(place, folder, what.task, job, run, execution=execution, beside=not what.name)
