"""Write the reports of sweeps: one HTML page a study, with figures and tables, and a tab for each structure.

    python -m experiments.report --workdir=DIR [--study=NAME] [--output=DIR] [--viewers=6]

Without --study, of every study that was swept in the workdir, finished or not.
"""

from pathlib import Path

from absl import flags

from experiments import cli, cluster_flags
from tlseg_jax.commands import flags as settings_flags
from tlseg_jax.report.sweep_report import VIEWERS as MOST
from tlseg_jax.report.sweep_report import write_report
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.studies.workplace import Workplace

PLACE = settings_flags.define(Workplace, only=("workdir",), defaults={"workdir": "runs"})
STUDY = flags.DEFINE_string("study", None, "Name of one study; none: all that were swept in the workdir.")
OUTPUT = flags.DEFINE_string("output", None, "Folder of the reports, one folder a study; none: WORKDIR/report.")
VIEWERS = flags.DEFINE_integer("viewers", MOST, "Scans to scroll through on each page, at most.", lower_bound=0)


def main() -> None:
    """Parse the flags and write the reports."""
    cluster_flags.refuse("report once, when the runs are done")
    workdir = cli.workdir(PLACE.text("workdir") or "runs", f"sweep/{STUDY.value}" if STUDY.value else "sweep")
    output = Path(OUTPUT.value) if OUTPUT.value else workdir / "report"
    for sweep in _sweeps(workdir, STUDY.value):
        page = write_report(sweep, output / sweep.name, viewers=VIEWERS.value)
        print(f"report: {page}")


def _sweeps(workdir: Path, name: str | None) -> list[Path]:
    """The folders of the studies.

    Raises:
      InputError: there are none, or not the named one.
    """
    root = workdir / "sweep"
    there = sorted(p.parent for p in root.glob("*/study.json"))
    if not there:
        raise InputError(f"There is no sweep in {root}: run 'python -m experiments.sweep' first, or check --workdir.")
    if name is None:
        return there
    chosen = [p for p in there if p.name == name]
    if not chosen:
        names = ", ".join(p.name for p in there)
        raise InputError(f"There is no sweep of a study '{name}' in {root}: choose from {names}.")
    return chosen


if __name__ == "__main__":
    cli.run(main)
