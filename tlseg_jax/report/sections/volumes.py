"""Section: how predicted volumes agree with those of the reference."""

from tlseg_jax.report import study_tables as tables
from tlseg_jax.report.figures.agreement_figure import draw_agreement
from tlseg_jax.report.page.sections import Section
from tlseg_jax.report.stats.sweep_stats import volume_agreement
from tlseg_jax.report.study_info import StudyInfo
from tlseg_jax.report.view import View
from tlseg_jax.report.words import study_words as words
from tlseg_jax.studies.results_table import Results


def volumes(results: Results, study: StudyInfo) -> Section | None:
    """Bias, limits of agreement and intraclass correlations on the target."""
    v = View(results, study)
    found = volume_agreement(results, study)
    if not found:
        return None
    lines = [
        "Volumes are what a trial measures. Limits of agreement (Bland & Altman 1999) hold 95% of the errors of "
        "single predictions; ICC(A,1) is the intraclass correlation of absolute agreement (McGraw & Wong 1996) of "
        "the persons' volumes, predicted ones averaged over the seeds."
    ]
    figures = []
    if not v.many:
        lines += [words.volume_words(v) for v in found]
        heading = "Agreement of volumes" + (f", {study.structure}" if study.structure else "")
        drawn = draw_agreement(found, v.styles)
        caption = (
            "Error of the predicted volume against the mean of both volumes, a point a person "
            f"({words.persons_words(len(v.points) for v in found)}, means over seeds), with bias and limits of "
            "agreement and their 95% intervals as bands; each method at its largest n."
        )
        figures.append(v.save(drawn, "volume_agreement", caption, "Bland-Altman panel of each method", heading))
    return Section("Volume agreement", tuple(lines), tuple(figures), (tables.volumes_table(found),))
