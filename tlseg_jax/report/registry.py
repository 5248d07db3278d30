"""The sections that a report can have, by the names that a study's TOML asks for.

A section is a function (results, study) -> section, or None where the study has nothing of its kind; to add one, write
its file in `report/sections/` and name it here.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping

from tlseg_jax.report.page.sections import Section
from tlseg_jax.report.sections.cases import cases
from tlseg_jax.report.sections.convergence import convergence
from tlseg_jax.report.sections.detection import detection
from tlseg_jax.report.sections.epochs import epochs
from tlseg_jax.report.sections.examples import examples
from tlseg_jax.report.sections.factors import factor_effects, factor_interactions, factor_pair
from tlseg_jax.report.sections.forgetting import forgetting
from tlseg_jax.report.sections.learning import learning
from tlseg_jax.report.sections.losses import losses, losses_by_method
from tlseg_jax.report.sections.method_tests import method_tests
from tlseg_jax.report.sections.methods import methods
from tlseg_jax.report.sections.pretasks import pretasks
from tlseg_jax.report.sections.remedies import remedies
from tlseg_jax.report.sections.scores import target, unseen
from tlseg_jax.report.sections.volumes import volumes
from tlseg_jax.report.sections.worst import worst
from tlseg_jax.report.study_info import StudyInfo
from tlseg_jax.runtime.choose import choose
from tlseg_jax.studies.results_table import Results

SECTIONS: Mapping[str, Callable[[Results, StudyInfo], Section | None]] = {
    f.__name__: f
    for f in (
        pretasks,
        target,
        unseen,
        learning,
        volumes,
        method_tests,
        remedies,
        worst,
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


def check_sections(names: Iterable[str]) -> None:
    """Refuse a name that is no section's.

    Raises:
      InputError: of the first such name; near ones are suggested.
    """
    for name in names:
        choose("section of a report", name, SECTIONS)


def make_sections(results: Results, study: StudyInfo) -> list[Section]:
    """The sections that the study asks for, in its order and under its headings, else the usual ones.

    Raises:
      InputError: there is no such section, or a figure cannot be written.
    """
    names = dict.fromkeys(study.sections or USUAL)
    check_sections((*names, *study.titles))
    found = {name: SECTIONS[name](results, study) for name in names}
    return [dataclasses.replace(s, title=study.titles.get(name, s.title)) for name, s in found.items() if s is not None]
