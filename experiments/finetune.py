"""Fine-tune a pre-trained network on n labelled scans of the target task, and score it.

    python -m experiments.finetune --pretask=hdt_v --n=16 [--task=hdt_c] [--store=DIR] [--workdir=runs]
    python -m experiments.finetune --pretask=lits --task=mri_artery --freeze=first_two

Makes what is missing (built-in cohort, prepared data, pre-trained model), reuses what is there and is the same,
and says which. `--pretask=none` trains end to end.
"""

from pathlib import Path

from absl import flags

from experiments import cli, cluster_flags, compilation_flags, execution_flags, pretrained, training_flags
from tlseg_jax.checkpoints.run_folder import check_settings
from tlseg_jax.datasets.spec import AnySpec
from tlseg_jax.runtime import processes
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.studies import runs as study
from tlseg_jax.studies.workplace import named_spec
from tlseg_jax.train.usual import USUAL_FREEZE

PRETASK = flags.DEFINE_string("pretask", None, "What to start from: a pre-task, or none for end to end.")
TASK = flags.DEFINE_string("task", "hdt_c", "The target: a data set's name, one of the store, or a TOML file.")
N = flags.DEFINE_integer("n", None, "Labelled scans of the target; none: all of its training set.")
FREEZE = flags.DEFINE_enum(
    "freeze", None, training_flags.FREEZE_NAMES,
    "What keeps its pre-trained values; none given: encoder for volumes, first_two (levels) for slices.",
)  # fmt: skip
FROZEN_BN = flags.DEFINE_enum(
    "frozen_bn", "running", ["running", "batch"], "How frozen batch norms normalise: running averages, or the batch."
)
HEAD = flags.DEFINE_enum("head", "keep", ["keep", "reset"], "What becomes of the pre-trained head.")
NAME = flags.DEFINE_string("name", None, "Name of the run folder, in place of one made from the settings.")

for module in (training_flags, execution_flags, cluster_flags, pretrained):
    flags.adopt_module_key_flags(module)  # so that --help lists them


def main() -> None:
    """Parse the flags, make what is missing, train and score."""
    cluster_flags.start()
    execution = execution_flags.execution()
    compilation_flags.use_cache()
    place = training_flags.workplace()
    target = cli.required(TASK)
    task = named_spec(place, target)
    start: Path | None = None
    pretask: AnySpec | None = None
    if pretrained.PRETRAINED.value:
        start = cli.run_folder(pretrained.PRETRAINED.value)
        source = start.name
        place.say(f"pre-trained model: {start}.")
    elif PRETASK.value == "none":
        source = "none"
    elif PRETASK.value:
        pretask = named_spec(place, PRETASK.value)
        if pretask.kind != task.kind:
            raise InputError(
                f"{pretask.name} is a data set of {pretask.kind} and {task.name} one of {task.kind}: a network of one "
                "cannot start from the other's; choose a --pretask of the same kind."
            )
        source = pretask.name
    else:
        raise InputError(
            "--pretask is missing: name what to start from, such as --pretask=hdt_v, "
            "or --pretask=none to train end to end."
        )
    usual = USUAL_FREEZE[task.kind]
    freeze = "none" if source == "none" else FREEZE.value or usual
    job = training_flags.job(
        task, "finetune", training_flags.STEPS.value, epochs=training_flags.EPOCHS.value, n=N.value, freeze=freeze,
        frozen_bn=FROZEN_BN.value, head=HEAD.value,
    )  # fmt: skip
    parts = [f"{source}-to-{task.name}", "all" if N.value is None else f"n{N.value}"]
    if source != "none" and freeze != usual:
        parts.append(f"freeze_{freeze}")
    folder = place.workdir / "finetune" / (NAME.value or training_flags.run_name(task, *parts))
    if NAME.value:  # before a pre-training for a run that would be refused
        processes.chief(lambda: check_settings(folder, {"job": job.to_dict()}))
    if pretask and PRETASK.value:
        start = pretrained.pretrained(place, PRETASK.value, pretask, execution)
    study.finetune(place, start, target, job, folder, execution=execution, beside=not NAME.value)


if __name__ == "__main__":
    cli.run(main)
