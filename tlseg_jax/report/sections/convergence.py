"""Section: which methods converge faster at each n (Wang & Tang 2020, section 4.2)."""

from tlseg_jax.evaluate.convergence import FRACTIONS
from tlseg_jax.report.cell_files import in_common, read_losses
from tlseg_jax.report.page.sections import ReportTable, Section, TableCell, significant
from tlseg_jax.report.sections.losses import draw_together
from tlseg_jax.report.stats.speed import AREA, STEPS, Speed, compare_speed
from tlseg_jax.report.study_info import StudyInfo
from tlseg_jax.report.study_tables import tests_table
from tlseg_jax.report.view import View
from tlseg_jax.report.words.difference import speed_words
from tlseg_jax.studies.results_table import Results

TITLE = "Does pre-training slow convergence?"


def convergence(results: Results, study: StudyInfo) -> Section:
    """Training losses at each n, steps to common levels of them, and paired tests over seeds."""
    v = View(results, study)
    if v.many:
        return Section(TITLE, (f"Not shown: {len(v.main)} methods are more than one figure can tell apart.",))
    read, notes = read_losses(results, study, v.main)
    curves, left_out = in_common(read)
    if not curves:
        return Section(TITLE, tuple(f"Not shown: {note}" for note in (*notes, *left_out)))
    speed = compare_speed(curves, study.task)
    plain = {m.name for m in study.methods if m.pretask == "none"}
    lines = [
        "Losses are running medians over a twentieth of the steps. Their levels are common to the runs of one n: the "
        "common loss is the highest that one of them ended at, percentages are of the highest that one started at, and "
        "the area is the mean loss over the training, as a part of that start. The units are seeds, which share their "
        "data: what is found holds for that data.",
        *notes,
        *left_out,
    ]
    steps, areas = ([t for t in speed.tests if t.measure == m] for m in (STEPS, AREA))
    for a, b in zip(steps, areas, strict=True):
        if (a.first in plain) != (a.second in plain):  # the other pairs are in the table
            a, b = (t if t.first in plain else t.turned() for t in (a, b))
            lines.append(speed_words(a, b))
    tests = (tests_table("convergence_tests", speed.tests, "Every two methods"),) if speed.tests else ()
    figures = tuple(draw_together(v, n, at, f"losses_n{n}") for n, at in curves.items())
    return Section(TITLE, tuple(lines), figures, (_runs(speed), *tests))


def _runs(speed: Speed) -> ReportTable:
    shares = tuple(f"steps to {f * 100:g}%" for f in FRACTIONS)
    columns = ("method", "n", "seed", "first loss", "last loss", *shares, "common loss", "steps to common", "area")
    rows: list[tuple[TableCell, ...]] = []
    for n, at in speed.runs.items():
        for method, own in at.items():
            for seed, c in own.items():
                ends = (significant(c.first_loss, 4), significant(c.last_loss, 4))
                to = (*(c.steps_to[f] for f in FRACTIONS), significant(speed.levels[n].end, 4), c.steps_to_end)
                rows.append((method, n, seed, *ends, *to, significant(c.area, 4)))
    caption = "Steps of each run to common levels of the training loss, and the area under it; a dash: never."
    return ReportTable("convergence", caption, columns, tuple(rows))
