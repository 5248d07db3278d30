"""What a report of slices has besides its scores: learning curves, minutes an epoch, convergence and forgetting.

These are read from the run folders of the cells (Wang & Tang 2020, sections 3.2.4 and 4.2). Dice on the target is
not: that comes from results.csv, like every score.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from tlseg_jax.evaluate.run_tables import MODELS, CompareRun, RunTables, read_run
from tlseg_jax.figures.slice_curves import draw_curves_together, draw_model_curve
from tlseg_jax.report import compare_tables as tables
from tlseg_jax.report.compare_analysis import Dice, Group, analyse
from tlseg_jax.report.page.sections import Cell, ReportFigure, ReportTable, Section
from tlseg_jax.report.study_info import StudyInfo
from tlseg_jax.report.words.compare_answers import answer_convergence, answer_forgetting
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.studies.assess import mark_of
from tlseg_jax.studies.results_table import Results, by_unit

CURVES = "Losses of the liver models"


def slice_sections(results: Results, study: StudyInfo, sweep: Path, folder: Path) -> tuple[Section, ...]:
    """The sections of a study of slices that are read from its cells.

    Args:
      results: of the study.
      study: it.
      sweep: its folder, with the cells.
      folder: of the report; figures go to "figures" in it.

    Returns:
      Sections; where cells or files of them are gone, sentences say which and why.
    """
    target = next((r.test_set for r in results if r.role == "target"), None)
    models = [m for m in results.methods if m in MODELS]
    if target is None or not models:
        return ()
    read, notes = _read(results, sweep)
    kept, left_out = _same_seeds(read)
    notes += left_out
    if not kept:
        return (Section(CURVES, ("Not shown: no run of models A, B or C is there.", *notes)),)
    source = next((r.test_set for r in results if r.role == "pretask"), None)
    before = _before(results, source)
    try:
        groups = analyse([_without_target(t, target, source) for t in kept], target, source, before)
    except (InputError, ValueError) as e:
        return (Section(CURVES, (f"Not shown: {e}", *notes)),)
    return (
        _curves(groups, study, target, folder, notes),
        Section(
            "Minutes an epoch",
            ("Training alone, mean over the seeds. Runs that shared a machine with others take longer than alone.",),
            tables=(_report("epoch_times", "Minutes of training an epoch.", tables.epoch_times(groups)),),
        ),
        Section(
            "Does pre-training slow convergence?",
            ("The units here are seeds, which share their data: what is found holds for that data.",
             *_answers(groups, answer_convergence)),
            tables=(
                _report(
                    "convergence", "Steps to common levels of the training loss and the area under it, each run.",
                    tables.convergence(groups),
                ),
            ),
        ),
        _forgetting(groups, source, before),
    )  # fmt: skip


def _read(results: Results, sweep: Path) -> tuple[list[RunTables], list[str]]:
    cells = {(r.method, r.n, r.seed): r.cell for r in results if r.method in MODELS}
    found, faults = [], []
    for (method, n, seed), cell in cells.items():
        try:
            found.append(read_run(CompareRun(method, seed, n, sweep / "cells" / cell)))
        except InputError as e:
            faults.append(str(e))
    if not faults:
        return found, []
    return found, [f"{len(faults)} of {len(cells)} runs cannot be read and are left out; the first: {faults[0]}"]


def _same_seeds(read: Sequence[RunTables]) -> tuple[list[RunTables], list[str]]:
    """The runs of those seeds that every model of an n has, so that a difference is none of seeds."""
    kept, left = [], 0
    for n in dict.fromkeys(t.run.n for t in read):
        here = [t for t in read if t.run.n == n]
        seeds = [{t.run.seed for t in here if t.run.model == m} for m in MODELS]
        common = set.intersection(*(s for s in seeds if s))
        same = [t for t in here if t.run.seed in common]
        kept += same
        left += len(here) - len(same)
    note = f"{left} run(s) are left out here, as not every model has their seed yet."
    return kept, [note] if left else []


def _without_target(t: RunTables, target: str, source: str | None) -> RunTables:
    """With the scores that forgetting needs alone: with folds, seeds are tested on different target volumes."""
    own = {source: t.scores[source]} if source is not None and source in t.scores else {}
    return dataclasses.replace(t, scores={target: {}, **own})


def _before(results: Results, source: str | None) -> Dice | None:
    own = results.where(role="pretask", test_set=source)
    return None if source is None else by_unit(own, lambda r: r.subject, "dice")


def _curves(groups: Sequence[Group], study: StudyInfo, target: str, folder: Path, notes: Sequence[str]) -> Section:
    mark = mark_of(study.synthetic)
    figures = []
    for g in reversed(groups):
        png = folder / "figures" / f"curves_n{g.n}.png"
        draw_curves_together(g.runs, png, heading=f"{', '.join(g.runs)} on {target}, n = {g.n}", mark=mark)
        words = f"Models {', '.join(g.runs)} trained on {g.n} volumes, {_seeds(g)}: running median of the training loss"
        figures.append(ReportFigure(png, f"{words}, and the test loss where it was measured.", f"Losses, n = {g.n}"))
    most = groups[-1]
    for model, own in most.runs.items():
        png = folder / "figures" / f"model_{model}.png"
        draw_model_curve(own, png, heading=f"Model {model} on {target}, n = {most.n}", mark=mark)
        caption = f"Model {model}, {MODELS[model]}, on {most.n} volumes, {_seeds(most)}."
        figures.append(ReportFigure(png, caption, f"Losses of model {model}"))
    return Section(CURVES, tuple(notes), tuple(figures))


def _seeds(group: Group) -> str:
    return f"{group.seeds} seed{'' if group.seeds == 1 else 's'}"


def _answers(groups: Sequence[Group], answer: Callable[[Group], list[str]]) -> list[str]:
    named = len(groups) > 1
    return [(f"n = {g.n}: " if named else "") + line for g in groups for line in answer(g)]


def _forgetting(groups: Sequence[Group], source: str | None, before: Dice | None) -> Section:
    title = "Does freezing keep what was learnt?"
    lines = list(dict.fromkeys(_answers(groups, lambda g: answer_forgetting(g, source))))
    if not any(g.forgotten for g in groups):
        return Section(title, (answer_forgetting(groups[0], None)[0],))
    return Section(
        title, tuple(lines),
        tables=(
            _report("forgetting", f"Dice on {source} before and after the transfer.", tables.forgetting(groups)),
            _report(
                "forgetting_volumes", f"The same by volume of {source}.", tables.forgetting_by_volume(groups, before)
            ),
        ),
    )  # fmt: skip


def _report(name: str, caption: str, table: tables.Table) -> ReportTable:
    """The comparison's table with its numbers as numbers."""
    return ReportTable(
        name, caption, tuple(c.replace("_", " ") for c in table.columns),
        tuple(tuple(_value(row.get(c, "")) for c in table.columns) for row in table.rows),
    )  # fmt: skip


def _value(text: str) -> Cell:
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        return text
    return int(number) if text.lstrip("-").isdigit() else number
