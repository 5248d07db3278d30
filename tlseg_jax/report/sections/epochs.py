"""Section: how long an epoch takes (the table of section 3.2.4 of Wang & Tang 2020)."""

import statistics

from tlseg_jax.report.cell_files import read_losses
from tlseg_jax.report.page.sections import ReportTable, Section, significant
from tlseg_jax.report.study_info import StudyInfo
from tlseg_jax.studies.results_table import Results


def epochs(results: Results, study: StudyInfo) -> Section | None:
    """Minutes of training an epoch and in all, means over the seeds; nothing where runs do not count in epochs."""
    found, notes = read_losses(results, study)
    every = [c for at in found.values() for own in at.values() for c in own.values()]
    most = max((len(c.epochs) for c in every), default=0)
    if not most and not notes:
        return None
    if not most:
        return Section("Minutes an epoch", tuple(f"Not shown: {note}" for note in notes))
    rows = []
    for n, at in found.items():
        for method, own in at.items():
            seconds = [[c.epochs[i].seconds for c in own.values() if i < len(c.epochs)] for i in range(most)]
            each = [statistics.fmean(s) if s else None for s in [*seconds, [c.seconds for c in own.values()]]]
            rows.append((method, n, len(own), *(significant(None if s is None else s / 60, 4) for s in each)))
    line = "Training alone, mean over the seeds. Runs that shared a machine with others take longer than alone."
    columns = ("method", "n", "seeds", *(f"epoch {i + 1}" for i in range(most)), "total")
    table = ReportTable("epoch_times", "Minutes of training an epoch.", columns, tuple(rows))
    return Section("Minutes an epoch", (line, *notes), tables=(table,))
