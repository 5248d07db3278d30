"""A pre-task's own model, made where it is missing; what `finetune` starts from."""

import dataclasses
from pathlib import Path

from absl import flags

from experiments import training_flags
from tlseg_jax.checkpoints.run_folder import own_folder
from tlseg_jax.datasets.slice_spec import SliceSpec
from tlseg_jax.datasets.spec import AnySpec
from tlseg_jax.runtime import processes
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.studies import runs as study
from tlseg_jax.studies.workplace import Workplace, open_store
from tlseg_jax.train.execution import Execution
from tlseg_jax.train.job_record import run_settings
from tlseg_jax.train.recipes import get_slice_recipe
from tlseg_jax.train.remedies import without_remedies

PRETRAINED = flags.DEFINE_string(
    "pretrained", None, "Run folder of a pre-trained model, in place of the pre-task's own."
)
PRETRAIN_STEPS = flags.DEFINE_integer(
    "pretrain_steps", None, "Length of a pre-training that is missing.", lower_bound=1
)
PRETRAIN_EPOCHS = flags.DEFINE_integer(
    "pretrain_epochs", None, "Slices: epochs of a pre-training that is missing.", lower_bound=1
)
PRETRAIN_LEARNING_RATE = flags.DEFINE_float(
    "pretrain_learning_rate", None, "Slices: rate of a pre-training that is missing, in place of the recipe's.",
    lower_bound=0,
)  # fmt: skip


def pretrained(place: Workplace, pretask: str, spec: AnySpec, execution: Execution) -> Path | None:
    """The run folder of the pre-task's model: that of these settings and data if it has finished, else trained now.

    One of other settings stays where it is, and is not used.

    Of slices, --learning_rate, --batch_size and --epochs are the target's: the report trains the pre-task otherwise.

    Args:
      place: where.
      pretask: as the user named it.
      spec: its data set.
      execution: how a missing one is trained; a dry run only says that it would be.

    Returns:
      The folder; None where a dry run found none.

    Raises:
      InputError: the data are missing, or a flag does not go with volumes.
    """
    folder = place.workdir / "pretrain" / training_flags.run_name(spec, spec.name, remedies=False)
    # Validation and remedies are asked for on the target's scans; the pre-task trains on all of its own, as ever.
    for flag in (PRETRAIN_EPOCHS, PRETRAIN_LEARNING_RATE):
        if flag.present and not isinstance(spec, SliceSpec):
            raise InputError(f"--{flag.name} does not go with volumes such as {spec.name}: leave it out.")
    steps = PRETRAIN_STEPS.value
    job = training_flags.job(spec, "pretrain", steps, epochs=PRETRAIN_EPOCHS.value)
    if isinstance(spec, SliceSpec):
        usual = get_slice_recipe(job.recipe.name, "pretrain")
        rate = usual.learning_rate if PRETRAIN_LEARNING_RATE.value is None else PRETRAIN_LEARNING_RATE.value
        recipe = dataclasses.replace(job.recipe, learning_rate=rate, batch_size=usual.batch_size)
        job = dataclasses.replace(job, recipe=recipe)
    job = dataclasses.replace(job, recipe=without_remedies(job.recipe), validation=0, patience=0)
    kept = study.kept_pretraining(place, spec, job, folder)
    if kept:
        place.say(f"{spec.name}: reusing the pre-trained model {kept}.")
        return kept
    # A dry run that finds none draws no cohort for it.
    if not execution.dry_run or any(folder.parent.glob(f"{folder.name}*/settings.json")):
        store = open_store(place, spec)
        settings = run_settings(store, job, None)
        folder = own_folder(folder, settings, place.say)
        tests = [store] if store.subjects("test") else []
        if processes.chief(lambda: study.is_done(place, folder, settings, tests)):
            place.say(f"{spec.name}: reusing the pre-trained model {folder}.")
            return folder
    if execution.dry_run:
        length = f"{job.steps} steps" if job.steps else f"{job.epochs} epochs"
        place.say(
            f"{spec.name}: no finished pre-trained model in {folder}; one would be trained first, for {length} "
            f"('python -m experiments.pretrain --pretask={pretask} --dry_run' tells what that takes)."
        )  # fmt: skip
        return None
    if processes.chief(lambda: study.is_finished(folder, 1)):
        place.say(f"{spec.name}: the pre-trained model {folder} is scored again, as its test set is another now.")
    else:
        place.say(f"{spec.name}: no finished pre-trained model in {folder}; training one.")
    return study.pretrain(place, pretask, job, folder, execution, store)
