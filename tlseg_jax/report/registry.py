"""The sections that a report can have, by the names that a study's TOML asks for.

A section is a function (results, study) -> section, or None where the study has nothing of its kind; to add one, write
its file in `report/sections/` and name it here.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping

from tlseg_jax.report.page.sections import Section, Tab, Tabs
from tlseg_jax.report.sections.answer import answer
from tlseg_jax.report.sections.cases import cases
from tlseg_jax.report.sections.convergence import convergence
from tlseg_jax.report.sections.detection import detection
from tlseg_jax.report.sections.examples import examples
from tlseg_jax.report.sections.factors import factor_effects, factor_interactions, factor_pair
from tlseg_jax.report.sections.forgetting import forgetting
from tlseg_jax.report.sections.learning import learning
from tlseg_jax.report.sections.losses import epochs, losses, losses_by_method
from tlseg_jax.report.sections.method_tests import method_tests
from tlseg_jax.report.sections.methods import methods, pretasks
from tlseg_jax.report.sections.remedies import remedies
from tlseg_jax.report.sections.scores import target, unseen, volumes
from tlseg_jax.report.sections.structures import structures
from tlseg_jax.report.sections.worst import worst
from tlseg_jax.report.stats.sweep_stats import over_structures, scored_sets
from tlseg_jax.report.study_info import StudyInfo
from tlseg_jax.report.view import View
from tlseg_jax.runtime.choose import choose
from tlseg_jax.studies.results_table import Results

SECTIONS: Mapping[str, Callable[[Results, StudyInfo], Section | None]] = {
    f.__name__: f
    for f in (
        answer,
        worst,
        pretasks,
        target,
        unseen,
        learning,
        volumes,
        method_tests,
        remedies,
        factor_effects,
        factor_interactions,
        factor_pair,
        cases,
        losses,
        losses_by_method,
        convergence,
        forgetting,
        epochs,
        detection,
        examples,
        methods,
    )
}

USUAL = tuple(n for n in SECTIONS if n not in ("losses_by_method", "convergence", "forgetting", "epochs", "examples"))
"""Of a study that asks for none. Factors, remedies and detection are shown where a study has them."""


OPENING = ("answer", "worst")
"""What the scans to look at stand behind."""

OF_RUNS = ("losses", "losses_by_method", "convergence", "epochs", "methods")
"""Sections that are the same whatever structure is looked at."""

OF_ONE = ("volumes", "worst", "cases", "detection", "examples")
"""Sections that make no sense of a mean over structures."""

OF_SCORES = ("worst", "target", "unseen", "learning", "method_tests", "remedies", "convergence")
"""Sections that are left out until a first cell is scored."""


def check_sections(names: Iterable[str]) -> None:
    """Refuse a name that is no section's.

    Raises:
      InputError: of the first such name; near ones are suggested.
    """
    for name in names:
        choose("section of a report", name, SECTIONS)


def make_sections(results: Results, study: StudyInfo, scans: Section | None = None) -> list[Section | Tabs]:
    """The sections that the study asks for, in its order and under its headings, else the usual ones.

    Of a study of several structures there is one answer, then a tab with the means over them and one for each, and
    then what is of the runs.

    Args:
      scans: a section that belongs behind what the page opens with, and before what is of the runs.

    Raises:
      InputError: there is no such section, or a figure cannot be written.
    """
    names = tuple(dict.fromkeys(study.sections or USUAL))
    check_sections((*names, *study.titles))
    own, beside = tuple(n for n in names if n not in OF_RUNS), (scans,) if scans else ()
    if len(results.structures) < 2 or not own:
        opening = 1 + max((i for i, n in enumerate(names) if n in OPENING), default=len(names) - 1)
        parts = [_sections(some, results, study) for some in (names[:opening], names[opening:])]
        return [*parts[0], *beside, *parts[1]]
    study = dataclasses.replace(study, recommended=View(results, study).best)
    one = _sections((n for n in own if n == "answer"), results, study)
    own = tuple(n for n in own if n != "answer")
    over = _within(study, "all")
    means = _sections((n for n in own if n not in OF_ONE), over_structures(results), over)
    tabs = [Tab("All structures", "all", (structures(results, over), *means))]
    for structure in results.structures:
        name = _folder(structure, [t.name for t in tabs])
        rows = results.where(structure=structure)
        # A pre-task may have structures of its own; the first tab has those.
        of_pretasks = rows.where(role="pretask").rows or not results.where(role="pretask").rows
        asked = (n for n in own if n != "pretasks" or of_pretasks)
        tabs.append(Tab(structure, name, _sections(asked, rows, _within(study, name, structure))))
    tabbed, of_runs = Tabs("Structure", tuple(tabs)), _sections((n for n in names if n in OF_RUNS), results, study)
    return [*one, *beside, tabbed, *of_runs] if one else [tabbed, *beside, *of_runs]


def _sections(names: Iterable[str], results: Results, study: StudyInfo) -> tuple[Section, ...]:
    scored = scored_sets(results)
    found = {name: SECTIONS[name](results, study) for name in names if scored or name not in OF_SCORES}
    return tuple(
        dataclasses.replace(s, title=study.titles.get(name, s.title)) for name, s in found.items() if s is not None
    )


def _within(study: StudyInfo, name: str, structure: str = "") -> StudyInfo:
    """The study as a tab shows it, with figures in a folder of their own."""
    figures = study.figures / name
    figures.mkdir(parents=True, exist_ok=True)
    return dataclasses.replace(study, figures=figures, structure=structure)


def _folder(structure: str, others: Iterable[str]) -> str:
    """A folder's name for a structure, unlike the others' where upper and lower case are one."""
    name, taken = re.sub(r"[^\w-]+", "-", structure), {o.lower() for o in others}
    return next(n for n in (name, *(f"{name}-{i}" for i in range(2, len(taken) + 3))) if n.lower() not in taken)
