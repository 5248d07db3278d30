"""Write the reports of sweeps: one page a study."""

import dataclasses
from pathlib import Path

from tlseg_jax.actions import places
from tlseg_jax.report.sweep_report import VIEWERS, write_report
from tlseg_jax.runtime.bounds import Count
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.messages import log
from tlseg_jax.studies.other_results import named_files


@dataclasses.dataclass(frozen=True)
class Reporting:
    """Which sweeps, and where to.

    Attributes:
      study: name of one study; none: all that were swept in the workdir.
      output: folder of the reports, one folder a study; none: WORKDIR/report.
      viewers: scans to scroll through on each page, at most.
      compare: NAME:FILE of scores of others on the study's scans, to stand beside it: a subjects.csv, any CSV with the
        columns subject and dice or iou (and structure), or nnU-Net's summary.json.
      participants: a participants.tsv as BIDS has it, or a CSV like it: age, sex, scanner and so on of the persons
        tested, so that the page says on whom the best method does worse.
    """

    study: str | None = None
    output: Path | None = None
    viewers: Count = VIEWERS
    compare: tuple[str, ...] = ()
    participants: Path | None = None


def report(workdir: str, asked: Reporting) -> list[Path]:
    """Write the reports, and tell where they are.

    Returns:
      The page of each study.

    Raises:
      InputError: there is no such sweep, there are several and `compare` is given, or see `named_files` and
        `write_report`.
    """
    compare = named_files(asked.compare)
    folder = places.workdir(workdir, f"sweep/{asked.study}" if asked.study else "sweep")
    sweeps, pages = _sweeps(folder, asked.study), []
    if compare and len(sweeps) > 1:
        names = ", ".join(s.name for s in sweeps)
        raise InputError(f"`compare` is for the report of one study: give `study`, one of {names}.")
    for swept in sweeps:
        page = write_report(
            swept, (asked.output or folder / "report") / swept.name, asked.viewers, compare, asked.participants
        )
        log.info(f"report: {page}")
        pages.append(page)
    return pages


def _sweeps(workdir: Path, name: str | None) -> list[Path]:
    """The folders of the studies.

    Raises:
      InputError: there are none, or not the named one.
    """
    root = workdir / "sweep"
    there = sorted(p.parent for p in root.glob("*/study.json"))
    if not there:
        raise InputError(f"There is no sweep in {root}: run 'tlseg sweep' first, or check `workdir`.")
    if name is None:
        return there
    chosen = [p for p in there if p.name == name]
    if not chosen:
        names = ", ".join(p.name for p in there)
        raise InputError(f"There is no sweep of a study '{name}' in {root}: choose from {names}.")
    return chosen
