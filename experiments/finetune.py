"""Fine-tune a pre-trained network on n labelled scans of the target task, and score it.

    python -m experiments.finetune --pretask=hdt_v --n=16 [--task=hdt_c] [--store=DIR] [--workdir=runs]

Makes what is missing (built-in cohort, prepared data, pre-trained model), reuses what is there, and says
which. `--pretask=none` trains end to end.
"""

import dataclasses
from pathlib import Path

from absl import flags

from experiments import cli, training_flags
from tlseg_jax.datasets.spec import get_spec
from tlseg_jax.errors import InputError
from tlseg_jax.transfer import study

PRETASK = flags.DEFINE_string("pretask", None, "What to start from: a pre-task, or none for end to end.")
PRETRAINED = flags.DEFINE_string(
    "pretrained", None, "Run folder of a pre-trained model, in place of the pre-task's own."
)
PRETRAIN_STEPS = flags.DEFINE_integer(
    "pretrain_steps", None, "Length of a pre-training that is missing.", lower_bound=1
)
TASK = flags.DEFINE_string("task", "hdt_c", "The target: a data set's name or a TOML file.")
N = flags.DEFINE_integer("n", None, "Labelled scans of the target; none: all of its training set.")
FREEZE = flags.DEFINE_enum("freeze", "encoder", training_flags.FREEZE_NAMES, "What keeps its pre-trained values.")
FROZEN_BN = flags.DEFINE_enum(
    "frozen_bn", "running", ["running", "batch"], "How frozen batch norms normalise: running averages, or the batch."
)
HEAD = flags.DEFINE_enum("head", "keep", ["keep", "reset"], "What becomes of the pre-trained head.")
NAME = flags.DEFINE_string("name", None, "Name of the run folder, in place of one made from the settings.")

flags.adopt_module_key_flags(training_flags)  # so that --help lists them

def main() -> None:
    """Parse the flags, make what is missing, train and score."""
    place = training_flags.workplace()
    target = cli.required(TASK)
    task = get_spec(target)
    start: Path | None = None
    if PRETRAINED.value:
        start = Path(PRETRAINED.value)
        source = start.name
        print(f"pre-trained model: {start}.", flush=True)
    elif PRETASK.value == "none":
        source = "none"
    elif PRETASK.value:
        source = get_spec(PRETASK.value).name
        start = _pretrained(place, PRETASK.value, source)
    else:
        raise InputError(
            "--pretask is missing: name what to start from, such as --pretask=hdt_v, "
            "or --pretask=none to train end to end."
        )
    freeze = FREEZE.value if start else "none"
    job = training_flags.job(
        "finetune", training_flags.STEPS.value, n=N.value, freeze=freeze, frozen_bn=FROZEN_BN.value, head=HEAD.value
    )
    parts = [f"{source}-to-{task.name}", "all" if N.value is None else f"n{N.value}"]
    if start and freeze != "encoder":
        parts.append(f"freeze_{freeze}")
    folder = place.workdir / "finetune" / (NAME.value or training_flags.run_name(*parts))
    study.finetune(place, start, target, job, folder)


def _pretrained(place: study.Workplace, pretask: str, name: str) -> Path:
    """The pre-task's own model: reused if it has finished, else trained now."""
    folder = place.workdir / "pretrain" / training_flags.run_name(name)
    # Validation is asked for on the target's scans; the pre-task trains on all of its own.
    job = dataclasses.replace(training_flags.job("pretrain", PRETRAIN_STEPS.value), validation=0, patience=0)
    if study.is_finished(folder, job.steps if PRETRAIN_STEPS.value else 1):
        study.check_same_data(place, get_spec(pretask), folder)
        print(f"{name}: reusing the pre-trained model {folder}.", flush=True)
        return folder
    print(f"{name}: no finished pre-trained model in {folder}; training one.", flush=True)
    return study.pretrain(place, pretask, job, folder)


if __name__ == "__main__":
    cli.run(main)
