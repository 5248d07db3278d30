"""Pre-train a network on a task with plenty of labels.

tlseg pretrain --pretask=hdt_v [--store=DIR] [--workdir=runs] [--steps=600]
"""

from tlseg_jax.commands import cluster_flags, compilation_flags, flags, place_flags, training_flags
from tlseg_jax.studies.settings import Pretraining, Training
from tlseg_jax.studies.single import pretrain_task

WHAT = flags.define(Pretraining)
N = flags.define(Training, only=("n",))
flags.adopt(training_flags, cluster_flags)


def main() -> None:
    """Parse the flags, train and score."""
    cluster_flags.start()
    pretask, execution = WHAT.settings().pretask, training_flags.EXECUTION.settings()
    compilation_flags.set_up_jax()
    pretrain_task(place_flags.workplace(), pretask, training_flags.training(N.value("n")), execution)
