"""Fine-tune a pre-trained network on n labelled scans of the target task, and score it.

    tlseg finetune --pretask=hdt_v --n=16 [--task=hdt_c] [--store=DIR] [--workdir=runs]
    tlseg finetune --pretask=lits --task=mri_artery --freeze=first_two

Makes what is missing (built-in cohort, prepared data, pre-trained model), reuses what is there and is the same,
and says which. `--pretask=none` trains end to end.
"""

import dataclasses

from tlseg_jax.actions import places
from tlseg_jax.commands import cluster_flags, compilation_flags, flags, place_flags, training_flags
from tlseg_jax.studies.settings import Finetuning, Missing, Start, Training
from tlseg_jax.studies.single import finetune_task

WHAT = flags.define(Finetuning)
N = flags.define(Training, only=("n",))
START = flags.define(Start)
MISSING = flags.define(Missing)
flags.adopt(training_flags, cluster_flags)


def main() -> None:
    """Parse the flags, make what is missing, train and score."""
    cluster_flags.start()
    execution = training_flags.EXECUTION.settings()
    compilation_flags.set_up_jax()
    place, what = place_flags.workplace(), WHAT.settings()
    if what.pretrained:
        what = dataclasses.replace(what, pretrained=str(places.find_run(what.pretrained)))
    finetune_task(place, what, training_flags.training(N.value("n")), START.settings(), MISSING.settings(), execution)
