"""A pre-task's own model, made where it is missing; what `finetune` and `compare` start from."""

import dataclasses
from pathlib import Path

from experiments import training_flags
from tlseg_jax.datasets.spec import AnySpec
from tlseg_jax.transfer import study
from tlseg_jax.transfer.workplace import Workplace


def pretrained(place: Workplace, pretask: str, spec: AnySpec, steps: int | None, epochs: int | None) -> Path:
    """The run folder of the pre-task's model: reused if it has finished, else trained now.

    Args:
      place: where.
      pretask: as the user named it.
      spec: its data set.
      steps: length of the pre-training; None takes the recipe's.
      epochs: the same for slices.

    Raises:
      InputError: a finished model is there and was trained on other data.
    """
    folder = place.workdir / "pretrain" / training_flags.run_name(spec, spec.name)
    # Validation is asked for on the target's scans; the pre-task trains on all of its own.
    job = dataclasses.replace(training_flags.job(spec, "pretrain", steps, epochs=epochs), validation=0, patience=0)
    if study.is_finished(folder, job.steps if steps and job.steps else 1):
        study.check_same_data(place, spec, folder)
        print(f"{spec.name}: reusing the pre-trained model {folder}.", flush=True)
        return folder
    print(f"{spec.name}: no finished pre-trained model in {folder}; training one.", flush=True)
    return study.pretrain(place, pretask, job, folder)
