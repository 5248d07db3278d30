"""Score a trained run on a prepared data set.

tlseg evaluate --run=runs/finetune/NAME --dataset=oas_c --store=DIR
tlseg evaluate --run=runs/finetune/NAME --dataset=oas_c --store=DIR --trust --space=scan
"""

from tlseg_jax.actions.evaluate import Scoring, calibrate, evaluate
from tlseg_jax.actions.places import Named
from tlseg_jax.commands import cluster_flags, compilation_flags, flags
from tlseg_jax.studies.workplace import Workplace

NAMED = flags.define(Named)
SCORING = flags.define(Scoring)
MEASURED = flags.define(Workplace, only=("distances", "clean", "tiles", "tta", "adabn"))
flags.adopt(cluster_flags, compilation_flags)


def main() -> None:
    """Parse the flags, score, and print the summary."""
    cluster_flags.start()
    named, scoring = NAMED.settings(), SCORING.settings()
    compilation_flags.set_up_jax()
    (calibrate if scoring.trust else evaluate)(named, scoring, **MEASURED.values())
