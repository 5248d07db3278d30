"""Write the reports of sweeps: one HTML page a study, with figures and tables, and a tab for each structure.

    tlseg report --workdir=DIR [--study=NAME] [--output=DIR] [--viewers=6] [--compare=NAME:FILE,...]
        [--participants=participants.tsv]

Without --study, of every study that was swept in the workdir, finished or not.
"""

from tlseg_jax.actions.report import Reporting, report
from tlseg_jax.commands import cluster_flags, flags
from tlseg_jax.studies.workplace import Workplace

PLACE = flags.define(Workplace, only=("workdir",), defaults={"workdir": "runs"})
ASKED = flags.define(Reporting)


def main() -> None:
    """Parse the flags and write the reports."""
    cluster_flags.refuse("report once, when the runs are done")
    report(PLACE.text("workdir") or "runs", ASKED.settings())
