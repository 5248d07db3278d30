"""Section: the pre-trained models on test sets of their own."""

from tlseg_jax.figures.method_style import MANY
from tlseg_jax.report import study_tables as tables
from tlseg_jax.report.page.sections import Section
from tlseg_jax.report.stats.sweep_stats import pretask_scores
from tlseg_jax.report.study_info import StudyInfo
from tlseg_jax.report.words import study_words as words
from tlseg_jax.studies.results_table import Results


def pretasks(results: Results, study: StudyInfo) -> Section | None:
    """IoU of each pre-training, mean over persons (Table 2 of Weatheritt et al. 2020)."""
    scores = pretask_scores(results)
    title = "Pre-trained models"
    if not scores:
        return Section(title, ("No pre-trained model was scored on a test set of its own.",))
    lines = [f"{s.method}: mean IoU {words.score_words(s)}." for s in scores] if len(scores) <= MANY else []
    if study.drawn:
        lines.append(f"What they were trained and are tested on here: {study.drawn}.")
    return Section(title, tuple(lines), tables=(tables.table_2(scores),))
