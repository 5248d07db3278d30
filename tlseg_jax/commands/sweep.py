"""Run a study: every method by every number of labelled scans by every seed, each cell once, resumable.

    tlseg sweep --study=brain|liver|factors|FILE.toml [--store=DIR] [--workdir=DIR] [--plan]

The cells are in WORKDIR/sweep/NAME, and results.csv there has a row a cell, structure and subject, from which
`tlseg report --workdir=WORKDIR` makes tables, figures and one page.
"""

import sys

from tlseg_jax.actions.sweep import check_execution, sweep
from tlseg_jax.commands import cluster_flags, compilation_flags, flags, place_flags
from tlseg_jax.studies.choose_study import Sweeping
from tlseg_jax.studies.settings import Missing, Training
from tlseg_jax.studies.study import Study
from tlseg_jax.train.execution import Execution

EXIT_CELLS = 3
"""Exit code where cells failed and the rest were finished."""

ASKED = flags.define(Sweeping)
IN_PLACE = " In place of the study's."
CHANGES = (
    flags.define(
        Study, only=("name", "task", "n", "seeds", "unseen", "folds", "label_maps"), absent="all", after=IN_PLACE
    ),
    flags.define(Training, only=("network", "recipe", "steps", "epochs"), absent="all", after=IN_PLACE),
    flags.define(Missing, only=("pretrain_steps", "pretrain_epochs"), after=IN_PLACE),
)
PRECISION = flags.define(Training, only=("precision",))
EXECUTION = flags.define(Execution, defaults={"cache": "auto", "parallel": None})
flags.adopt(place_flags, compilation_flags)


def main() -> None:
    """Parse the flags and run what is missing, or say what would be run."""
    cluster_flags.refuse(
        "give one all devices of its machine (--devices=all), or make its runs an array of 'tlseg finetune' jobs"
    )
    asked, execution = ASKED.settings(), check_execution(EXECUTION.settings())
    compilation_flags.set_up_jax()
    changes = {field: value for some in CHANGES for field, value in some.given().items()}
    swept = sweep(place_flags.workplace(), asked, changes, PRECISION.value("precision"), execution)
    if swept is not None and swept.failed:
        names = ", ".join(swept.failed)
        print(f"error: {len(swept.failed)} run(s) failed and the rest went on: {names}.", file=sys.stderr)
        raise SystemExit(EXIT_CELLS)
