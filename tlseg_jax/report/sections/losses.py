"""Sections of what training wrote down: losses, of all methods in one figure and of each, and time by epoch."""

import statistics
from collections.abc import Mapping

from tlseg_jax.evaluate.run_curves import RunCurves
from tlseg_jax.figures.loss_curves import draw_curves_together, draw_own_curves
from tlseg_jax.figures.style import MANY
from tlseg_jax.report.cell_files import read_losses
from tlseg_jax.report.page.sections import ReportFigure, ReportTable, Section, significant
from tlseg_jax.report.study_info import StudyInfo
from tlseg_jax.report.view import View
from tlseg_jax.report.words.study_words import counted
from tlseg_jax.studies.results_table import Results


def losses(results: Results, study: StudyInfo) -> Section | None:
    """All methods at the largest n (Fig. 10 of Wang & Tang 2020)."""
    v, title = View(results, study), "Training losses"
    if not results.numbers:
        return None
    if len(v.order) > MANY:
        return Section(title, (f"Not shown: {len(v.order)} methods are more than one figure can tell apart.",))
    n = results.numbers[-1]
    found, notes = read_losses(results.where(n=n), study)
    if not found:
        return Section(title, tuple(f"Not shown: {note}" for note in notes))
    return Section(title, notes, (draw_together(v, n, found[n], "losses"),))


def draw_together(v: View, n: int, runs: Mapping[str, Mapping[int, RunCurves]], stem: str) -> ReportFigure:
    """The figure of all methods at one n."""
    curves = {m: list(own.values()) for m, own in runs.items()}
    draw_curves_together(curves, v.styles, v.png(stem), heading=f"{v.study.task}, n = {n}", mark=v.mark)
    caption = (
        f"Running median of the training loss with {counted(n, 'labelled scan')}, and below it the test loss where it "
        "was measured; line: mean over the runs, band: from the lowest to the highest."
    )
    return v.figure(stem, caption, f"losses by method, n = {n}")


def losses_by_method(results: Results, study: StudyInfo) -> Section | None:
    """Each method's own losses at the largest n (Figs. 7 to 9 of Wang & Tang 2020)."""
    v, title = View(results, study), "Losses of each method"
    if not results.numbers:
        return None
    if v.many:
        return Section(title, (f"Not shown: {len(v.main)} methods are too many to look at one by one.",))
    n = results.numbers[-1]
    found, notes = read_losses(results.where(n=n), study, v.main)
    if not found:
        return Section(title, tuple(f"Not shown: {note}" for note in notes))
    figures = []
    for i, (method, own) in enumerate(found[n].items(), 1):
        stem = f"losses_{i}"
        draw_own_curves(
            list(own.values()),
            v.png(stem),
            colour=v.styles[method].colour,
            heading=f"{method} on {study.task}, n = {n}",
            mark=v.mark,
        )
        caption = f"{method} with {counted(n, 'labelled scan')}, {counted(len(own), 'seed')}."
        figures.append(v.figure(stem, caption, f"losses of {method}"))
    return Section(title, notes, tuple(figures))


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
