"""The comparison of models A, B and C as a folder: figures, CSV tables and one page to read.

    FOLDER/comparison.md
    FOLDER/{epoch_times,volumes,summary,tests,convergence,forgetting,forgetting_volumes}.csv
    FOLDER/figures/{model_A,model_B,model_C,curves,dice,examples}.png

Where the models were trained on several numbers of volumes, `model_A.png` and `curves.png` are of the most,
and `model_A_n2.png`, `curves_n2.png` of the others.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tlseg_jax.evaluate.run_tables import MODELS, CompareRun, name_n, read_run, read_scores
from tlseg_jax.evaluate.table import write_table
from tlseg_jax.figures.slice_curves import draw_curves_together, draw_model_curve
from tlseg_jax.figures.slice_examples import ExampleCase, draw_examples
from tlseg_jax.report import compare_tables as tables
from tlseg_jax.report.compare_analysis import Dice, Group, analyse
from tlseg_jax.report.stats.compare_stats import FEWER, RESAMPLES, spread_caption
from tlseg_jax.report.stats.slice_dice import draw_dice_by_model
from tlseg_jax.report.words.compare_answers import answer_convergence, answer_forgetting, answer_target, answers
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.written import publishing
from tlseg_jax.studies.assess import mark_of

PAGE = "comparison.md"

METHOD = f"""\
- The units of the tests on Dice are volumes. A volume's Dice is averaged over the seeds first: seeds are tested on the
  same volumes and are no independent samples.
- The units of the tests on convergence are seeds. Those runs share their data, so what is found holds for that data.
- Intervals are 95% bootstrap intervals of the mean (BCa, {RESAMPLES:,} resamples). {FEWER}
- p is of the two-sided Wilcoxon signed-rank test; between models it is adjusted for the comparisons of one measure at
  one n (Holm), not across measures or across n.
- "Higher" or "lower" is said only where p is below 0.05, the interval, if any, is without 0 and there are units enough
  for this test to reach 0.05 at all (six; seven where three comparisons are adjusted). "Leaning" means that every unit
  differs in one direction, which by itself shows nothing.
- Training losses are running medians over a twentieth of the steps. Levels of loss are common to all runs of one n:
  the common loss is the highest that a run of it ended at, percentages are of the highest that one started at. The
  area is the mean loss over the training, as a part of that start.
"""


def write_comparison(
    folder: Path,
    runs: Sequence[CompareRun],
    pretrained: Path | None,
    target: str,
    source: str | None,
    examples: Sequence[ExampleCase],
    synthetic: bool,
    settings: Mapping[str, Any],
) -> Path:
    """Write the comparison from finished runs (Wang & Tang 2020, sections 3.2.4 and 4.2).

    Args:
      folder: where to write; made if it is missing.
      runs: of models A, B and C; the models of one n have the same seeds. A model may be absent.
      pretrained: run folder of the pre-trained model, scored on `source`; None where there is none.
      target: test set of the target task, as "mri_artery_tumour".
      source: test set of the pre-training task, as "lits_tumour"; None where forgetting is not measured.
      examples: slices to draw; none draws no such figure.
      synthetic: whether the scans are drawn; figures and page say so.
      settings: what the runs share, listed on the page.

    Returns:
      The page, `comparison.md`, which is written last.

    Raises:
      InputError: there are no runs; a file of one is missing or damaged; seeds or volumes differ; the
        folder has a file under a name of ours that no earlier call wrote.
    """
    if not runs:
        raise InputError(f"There are no finished runs to compare for {folder}: train models A, B and C first.")
    before = None if pretrained is None or source is None else _before(pretrained, source)
    groups = analyse([read_run(r) for r in runs], target, source, before)
    folder.mkdir(parents=True, exist_ok=True)
    with publishing(folder, PAGE) as beside:
        figures = beside / "figures"
        figures.mkdir()
        mark = mark_of(synthetic)
        for g in groups:
            of_n = f", n = {name_n(g.n)}" if len(groups) > 1 else ""
            for m, own in g.runs.items():
                path = figures / _curve_name(f"model_{m}", g, groups)
                draw_model_curve(own, path, heading=f"Model {m} on {target}{of_n}", mark=mark)
            heading = f"{_models(groups)} on {target}{of_n}"
            draw_curves_together(g.runs, figures / _curve_name("curves", g, groups), heading=heading, mark=mark)
        draw_dice_by_model({g.n: g.dice for g in groups}, figures / "dice.png", heading=target, mark=mark)
        if examples:
            draw_examples(examples, figures / "examples.png", heading=f"Examples of {target}", mark=mark)
        found = {
            "epoch_times": tables.epoch_times(groups),
            "volumes": tables.volumes(groups, target),
            "summary": tables.summary(groups, target),
            "tests": tables.tests(groups, target, source),
            "convergence": tables.convergence(groups),
            "forgetting": tables.forgetting(groups),
            "forgetting_volumes": tables.forgetting_by_volume(groups, before),
        }
        for name, table in found.items():
            write_table(beside / f"{name}.csv", table.columns, table.rows)
        page = _page(groups, found, target, source, bool(examples), synthetic, settings)
        (beside / PAGE).write_text(page, encoding="utf-8")
    return folder / PAGE


def _before(pretrained: Path, source: str) -> Dice:
    scores = read_scores(pretrained)
    if source not in scores:
        there = ", ".join(scores) or "none"
        raise InputError(
            f"{pretrained / 'subjects.csv'} has no scores on {source} (it has: {there}): "
            "evaluate the pre-trained model on that data set."
        )
    return {volume: s.dice for volume, s in scores[source].items()}


def _curve_name(stem: str, group: Group, groups: Sequence[Group]) -> str:
    return f"{stem}.png" if group is groups[-1] else f"{stem}_n{name_n(group.n)}.png"


def _names(groups: Sequence[Group]) -> list[str]:
    return [m for m in MODELS if any(m in g.runs for g in groups)]


def _models(groups: Sequence[Group]) -> str:
    names = _names(groups)
    return f"Model {names[0]}" if len(names) == 1 else f"Models {', '.join(names[:-1])} and {names[-1]}"


def _page(
    groups: Sequence[Group],
    found: Mapping[str, tables.Table],
    target: str,
    source: str | None,
    examples: bool,
    synthetic: bool,
    settings: Mapping[str, Any],
) -> str:
    """The page's text."""

    def title(g: Group) -> str:
        return f"**n = {name_n(g.n)}**"

    parts = [f"# {_models(groups)} on {target}"]
    if synthetic:
        parts.append("**The scans are synthetic: these scores mean nothing for patients.**")
    parts.append("\n".join(f"- Model {m}: {_described(m, groups)}." for m in _names(groups)))
    numbers = ", ".join(name_n(g.n) for g in groups)
    seeds = " / ".join(str(k) for k in dict.fromkeys(g.seeds for g in groups))
    volumes = len(next(iter(groups[-1].dice.values())))
    parts.append(f"Labelled volumes: {numbers}. Seeds a model: {seeds}. Test volumes: {volumes}.")
    if {"B", "C"} & set(_names(groups)):
        parts.append(
            "Models B and C of every seed start from the same pre-trained model: what is said below of pre-training "
            "is said of this one start, and another might turn it round."
        )
    parts += ["## Did pre-training help on the target?", answers(groups, title, lambda g: answer_target(g, target))]
    parts += ["## Does pre-training slow convergence?", answers(groups, title, answer_convergence)]
    parts += [
        "## Does freezing keep what was learnt?",
        answers(groups, title, lambda g: answer_forgetting(g, source)),
    ]
    shown = [
        "model", "n", "seeds", "volumes", "dice", "dice_low", "dice_high", "dice_each", "iou", "precision", "recall",
        "trained_parameters", "seconds_an_epoch", "seconds",
    ]  # fmt: skip
    parts += [
        "## Scores",
        f"Means over volumes, Dice with its {spread_caption(len(own) for g in groups for own in g.dice.values())}. "
        "Precision and recall count tumours, pooled over volumes "
        "and seeds.",
        _rounded(found["summary"]).markdown(shown),
        "![Dice of each volume](figures/dice.png)",
        "Each volume and run: [volumes.csv](volumes.csv).",
        "## Paired tests",
        "The second model less the first; d_z is Cohen's, r the matched-pairs rank-biserial correlation.",
        _tests(found["tests"]).markdown(),
        "All numbers: [tests.csv](tests.csv).",
        "## Learning curves",
    ]
    for g in reversed(groups):
        names = {"curves": "together", **{f"model_{m}": f"model {m}" for m in g.runs}}
        of_n = f", n = {name_n(g.n)}" if len(groups) > 1 else ""
        for stem, words in names.items():
            parts.append(f"![Learning curves, {words}{of_n}](figures/{_curve_name(stem, g, groups)})")
    parts += [
        "## Convergence",
        "Means over seeds; each run is in [convergence.csv](convergence.csv). There is no mean where a seed never "
        "came down to a level.",
        _rounded(tables.over_seeds(found["convergence"]), 3).markdown(),
    ]
    if found["forgetting"].rows:
        columns = [c for c in found["forgetting"].columns if c != "note"]
        parts += [
            "## Forgetting",
            f"Dice on {source} before and after the transfer, by volume in "
            "[forgetting_volumes.csv](forgetting_volumes.csv). Model A's row is what a model scores that never had "
            "that task.",
            _rounded(found["forgetting"], 3).markdown(columns),
        ]
    parts += ["## Minutes an epoch", "Training alone, mean over seeds.", found["epoch_times"].markdown()]
    if examples:
        parts += ["## Examples", "![Example slices](figures/examples.png)"]
    if settings:
        parts += ["## Settings", "\n".join(f"- {k}: {_plain(v)}" for k, v in settings.items())]
    parts += ["## How to read the numbers", METHOD.strip()]
    return "\n\n".join(parts) + "\n"


def _described(model: str, groups: Sequence[Group]) -> str:
    """A model in words, with the freezing that its runs had."""
    settings = next(g.runs[model][0].settings for g in groups if model in g.runs)
    job = settings.get("job")
    freeze = job.get("freeze") if isinstance(job, dict) else None
    return MODELS[model] + (f" (freeze = {freeze})" if model == "C" and freeze else "")


def _rounded(table: tables.Table, digits: int = 4) -> tables.Table:
    """Fewer digits for the page; whole numbers and words stay."""
    return tables.Table(
        table.columns, tuple({k: _short(v, digits) for k, v in row.items()} for row in table.rows)
    )


def _short(cell: str, digits: int) -> str:
    try:
        number = float(cell)
    except ValueError:
        return cell
    return cell if number.is_integer() else tables.text(number, digits)


def _tests(table: tables.Table) -> tables.Table:
    """The tests with names that a page can hold."""
    names = {
        "measure": "measure", "n": "n", "comparison": "comparison", "units": "units", "mean_difference": "difference",
        "low": "low", "high": "high", "each": "each", "wilcoxon_p": "Wilcoxon p", "wilcoxon_p_holm": "Holm p",
        "smallest_p": "least p", "t_p": "t-test p", "cohens_dz": "d_z", "rank_biserial": "r",
    }  # fmt: skip
    rows = []
    for row in _rounded(table, 3).rows:
        cells = {new: row[old] for old, new in names.items()}
        rows.append(cells | {"units": f"{row['units']} {row['unit']}{'' if row['units'] == '1' else 's'}"})
    return tables.Table(tuple(names.values()), tuple(rows))


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} = {_plain(v)}" for k, v in value.items())
    return ", ".join(_plain(v) for v in value) if isinstance(value, list | tuple) else str(value)
