"""The comparison's numbers as tables of text, for CSV files and for the page."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from tlseg_jax.evaluate.convergence import FRACTIONS
from tlseg_jax.evaluate.run_tables import RunTables, name_n
from tlseg_jax.report.compare_analysis import Comparison, Dice, Group
from tlseg_jax.report.stats.compare_stats import mean_interval, values_text


@dataclasses.dataclass(frozen=True)
class Table:
    """Columns in order and rows by column; a cell that is absent is empty."""

    columns: tuple[str, ...]
    rows: tuple[Mapping[str, str], ...]

    def markdown(self, columns: Sequence[str] | None = None) -> str:
        """A Markdown table of these columns, or of all."""
        shown = self.columns if columns is None else columns
        lines = [shown, ["---"] * len(shown), *([r.get(c) or "-" for c in shown] for r in self.rows)]
        return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def text(value: float | None, digits: int = 6) -> str:
    """Up to `digits` significant digits; empty for None and for what is not finite."""
    return "" if value is None or not math.isfinite(value) else f"{value:.{digits}g}"


def epoch_times(groups: Sequence[Group]) -> Table:
    """Minutes of training an epoch, mean over seeds, and in all (the table of section 3.2.4).

    The total is the mean of the runs' sums; its epochs add up to it where all seeds have as many.
    """
    most = max(len(t.epochs) for g in groups for own in g.runs.values() for t in own)
    rows = []
    for g in groups:
        for m, own in g.runs.items():
            row = {"model": m, "n": name_n(g.n), "seeds": str(len(own))}
            for i in range(most):
                minutes = [t.epochs[i].seconds / 60 for t in own if i < len(t.epochs)]
                row[f"epoch_{i + 1}"] = text(float(np.mean(minutes)), 4) if minutes else ""
            row["total"] = text(float(np.mean([t.seconds / 60 for t in own])), 5)
            rows.append(row)
    return Table(("model", "n", "seeds", *(f"epoch_{i + 1}" for i in range(most)), "total"), tuple(rows))


def volumes(groups: Sequence[Group], target: str) -> Table:
    """Every run's score of every volume."""
    columns = ("model", "n", "seed", "volume", "dice", "iou", "reference_ml", "predicted_ml")
    rows = []
    for g in groups:
        for m, own in g.runs.items():
            for t in own:
                for volume, s in t.volumes(target).items():
                    values = (s.dice, s.iou, s.reference_ml, s.predicted_ml)
                    cells = (m, name_n(g.n), str(t.run.seed), volume, *(text(v) for v in values))
                    rows.append(dict(zip(columns, cells, strict=True)))
    return Table(columns, tuple(rows))


def summary(groups: Sequence[Group], target: str) -> Table:
    """Each model at each n: mean scores over volumes (averaged over seeds first), detection and cost.

    Detection is pooled over volumes and seeds: precision is found / (found + false), recall
    found / (found + missed).
    """
    columns = (
        "model", "n", "seeds", "volumes", "dice", "dice_low", "dice_high", "dice_each", "iou", "precision", "recall",
        "tumours_found", "tumours_missed", "false_tumours", "trained_parameters", "seconds_an_epoch", "seconds",
    )  # fmt: skip
    rows = []
    for g in groups:
        for m, own in g.runs.items():
            dice = mean_interval(list(g.dice[m].values()))
            iou = mean_interval([s.iou for t in own for s in t.volumes(target).values()])
            detected = [d for t in own if (d := t.detection(target)) is not None]
            found, missed, false = (sum(int(d[k]) for d in detected) for k in ("found", "missed", "false"))
            cells = (
                m, name_n(g.n), str(len(own)), str(dice.n), text(dice.mean), text(dice.low), text(dice.high),
                values_text(dice), text(iou.mean), _share(found, false), _share(found, missed),
                *(str(v) if detected else "" for v in (found, missed, false)),
                _parameters(own),
                text(float(np.mean([e.seconds for t in own for e in t.epochs]))),
                text(float(np.mean([t.seconds for t in own]))),
            )  # fmt: skip
            rows.append(dict(zip(columns, cells, strict=True)))
    return Table(columns, tuple(rows))


def _share(found: int, other: int) -> str:
    return text(found / (found + other)) if found + other else ""


def _parameters(runs: Sequence[RunTables]) -> str:
    values = {t.summary.get("trained_parameters") for t in runs}
    (value,) = values if len(values) == 1 else (None,)
    return "" if value is None else str(value)


def tests(groups: Sequence[Group], target: str, source: str | None) -> Table:
    """Every paired test: Dice over volumes, steps and area over seeds."""
    columns = (
        "measure", "n", "comparison", "unit", "units", "mean_difference", "low", "high", "each", "wilcoxon_p",
        "wilcoxon_p_holm", "smallest_p", "t_p", "cohens_dz", "rank_biserial", "note",
    )  # fmt: skip
    rows = []

    def add(g: Group, measure: str, unit: str, found: Sequence[Comparison]) -> None:
        for c in found:
            t = c.test
            spread = (*(text(v) for v in (t.mean_difference, t.low, t.high)), values_text(t))
            numbers = (t.wilcoxon_p, c.p, t.smallest_p, t.t_p, t.effect, t.rank_biserial)
            cells = (
                measure, name_n(g.n), f"{c.second} - {c.first}", unit, str(t.n), *spread, *(text(v) for v in numbers),
                t.note,
            )  # fmt: skip
            rows.append(dict(zip(columns, cells, strict=True)))

    for g in groups:
        add(g, f"dice on {target}", "volume", g.on_target)
        add(g, f"dice on {source}", "volume", g.on_source)
        add(g, "steps to the common loss", "seed", g.steps)
        add(g, "area under the training loss", "seed", g.areas)
    return Table(columns, tuple(rows))


def convergence(groups: Sequence[Group]) -> Table:
    """Each run's training loss against the common levels of its n."""
    shares = {f: f"steps_to_{f * 100:g}%" for f in FRACTIONS}
    columns = (
        "model", "n", "seed", "first_loss", "last_loss", *shares.values(), "common_loss", "steps_to_common", "area",
        "last_test_loss",
    )  # fmt: skip
    rows = []
    for g in groups:
        for m, own in g.runs.items():
            for t in own:
                c = g.speed[m][t.run.seed]
                test = t.test_losses
                cells = (
                    m, name_n(g.n), str(t.run.seed), text(c.first_loss), text(c.last_loss),
                    *("" if c.steps_to[f] is None else str(c.steps_to[f]) for f in shares),
                    text(g.levels.end), "" if c.steps_to_end is None else str(c.steps_to_end), text(c.area),
                    text(test[-1][1]) if test else "",
                )  # fmt: skip
                rows.append(dict(zip(columns, cells, strict=True)))
    return Table(columns, tuple(rows))


def over_seeds(table: Table) -> Table:
    """Means over the rows that differ in "seed" only; empty where a seed has none, as their mean would flatter."""
    columns = tuple(c for c in table.columns if c != "seed")
    rows = []
    for model, n in dict.fromkeys((r["model"], r["n"]) for r in table.rows):
        own = [r for r in table.rows if (r["model"], r["n"]) == (model, n)]
        row = {"model": model, "n": n}
        for c in columns[2:]:
            cells = [r.get(c, "") for r in own]
            row[c] = text(float(np.mean([float(v) for v in cells]))) if all(cells) else ""
        rows.append(row)
    return Table(columns, tuple(rows))


def forgetting(groups: Sequence[Group]) -> Table:
    """Each model's Dice on the pre-training test set before and after the transfer."""
    columns = (
        "model", "n", "seeds", "volumes", "before", "after", "change", "low", "high", "each", "kept", "wilcoxon_p",
        "note",
    )  # fmt: skip
    rows = []
    for g in groups:
        for m, f in g.forgotten.items():
            t = f.change
            # Model A is no continuation of the pre-trained model: it kept nothing, whatever it scores.
            kept = None if m == "A" else f.kept
            numbers = (f.before.mean, f.after.mean, t.mean_difference, t.low, t.high)
            cells = (
                m, name_n(g.n), str(g.seeds), str(t.n), *(text(v) for v in numbers), values_text(t), text(kept),
                text(t.wilcoxon_p), t.note,
            )  # fmt: skip
            rows.append(dict(zip(columns, cells, strict=True)))
    return Table(columns, tuple(rows))


def forgetting_by_volume(groups: Sequence[Group], before: Dice | None) -> Table:
    """The scores behind `forgetting`, volume by volume."""
    columns = ("model", "n", "volume", "before", "after")
    rows = []
    for g in groups:
        for m, own in g.source_dice.items():
            for volume, after in own.items():
                first = None if before is None else before.get(volume)
                cells = (m, name_n(g.n), volume, text(first), text(after))
                rows.append(dict(zip(columns, cells, strict=True)))
    return Table(columns, tuple(rows))
