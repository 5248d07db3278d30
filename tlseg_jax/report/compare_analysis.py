"""Every number of the comparison of models A, B and C, worked out once from the runs' tables."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from tlseg_jax.evaluate.convergence import Convergence, Levels, common_levels, convergence
from tlseg_jax.evaluate.run_tables import RunTables, by_n
from tlseg_jax.report.stats.compare_stats import Forgetting, PairedTest, forgetting, holm, paired_test
from tlseg_jax.runtime.errors import InputError

PAIRS = (("A", "B"), ("A", "C"), ("B", "C"))
"""What is compared: the second against the first. B and C against A say what pre-training did, C against B
what freezing did."""

Dice = Mapping[str, float]
"""Volume -> Dice averaged over seeds."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two models on one measure.

    Attributes:
      first: a model.
      second: the model whose values less those of `first` were tested.
      test: the paired test.
      p: Wilcoxon's p-value adjusted for the comparisons of this measure at this n (Holm).
    """

    first: str
    second: str
    test: PairedTest
    p: float | None


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """The models that were trained on one number of volumes.

    Attributes:
      n: labelled volumes; None for all.
      runs: model -> its runs, one a seed, the same seeds for each.
      dice: model -> Dice on the target's test volumes.
      on_target: comparisons of those; the units are volumes.
      source_dice: model -> Dice on the pre-training test volumes; models that were not scored there lack.
      on_source: comparisons of those; the units are volumes.
      forgotten: model -> what became of the pre-training task.
      levels: of the training losses of this group.
      speed: model -> seed -> its training loss against the levels.
      steps: comparisons of the steps to the common level; the units are seeds.
      areas: comparisons of the area under the loss; the units are seeds.
    """

    n: int | None
    runs: Mapping[str, tuple[RunTables, ...]]
    dice: Mapping[str, Dice]
    on_target: tuple[Comparison, ...]
    source_dice: Mapping[str, Dice]
    on_source: tuple[Comparison, ...]
    forgotten: Mapping[str, Forgetting]
    levels: Levels
    speed: Mapping[str, Mapping[int, Convergence]]
    steps: tuple[Comparison, ...]
    areas: tuple[Comparison, ...]

    @property
    def seeds(self) -> int:
        """Runs of each model."""
        return len(next(iter(self.runs.values())))


def analyse(
    tables: Sequence[RunTables], target: str, source: str | None = None, before: Dice | None = None
) -> tuple[Group, ...]:
    """Compare the models at each n.

    Args:
      tables: of all runs.
      target: test set of the target task, as "mri_artery_tumour".
      source: test set of the pre-training task, as "lits_tumour"; None where it is not measured.
      before: the pre-trained model's Dice on it; None where it is not measured.

    Returns:
      A group for each n, upwards, "all" last.

    Raises:
      InputError: a run was not scored on the target, the seeds differ between models, or the volumes
        of a test set differ between runs.
    """
    return tuple(_group(n, runs, target, source, before) for n, runs in by_n(tables).items())


def _group(
    n: int | None, runs: Mapping[str, tuple[RunTables, ...]], target: str, source: str | None, before: Dice | None
) -> Group:
    dice = _dice_by_model(runs, target)
    scored = {m: own for m, own in runs.items() if source and all(source in t.scores for t in own)}
    source_dice = _dice_by_model(scored, source) if source else {}
    for own in source_dice.values() if before is not None else ():
        odd = sorted(own.keys() ^ (before or {}).keys())
        if odd:
            raise InputError(
                f"The pre-trained model and the transferred ones were scored on different volumes of {source} "
                f"({', '.join(odd[:5])} in one only): evaluate all on the same data set."
            )
    levels = common_levels([t.losses for own in runs.values() for t in own])
    speed = {m: {t.run.seed: convergence(t.losses, levels) for t in own} for m, own in runs.items()}
    steps = {
        m: {str(s): math.nan if c.steps_to_end is None else float(c.steps_to_end) for s, c in own.items()}
        for m, own in speed.items()
    }
    areas = {m: {str(s): c.area for s, c in own.items()} for m, own in speed.items()}
    forgotten = {} if before is None else {m: forgetting(before, own) for m, own in source_dice.items()}
    return Group(
        n, runs, dice, compare(dice), source_dice, compare(source_dice), forgotten, levels, speed,
        compare(steps), compare(areas),
    )  # fmt: skip


def compare(values: Mapping[str, Mapping[str, float]]) -> tuple[Comparison, ...]:
    """Test each of `PAIRS` whose models are there.

    Args:
      values: model -> unit -> value.

    Raises:
      InputError: the units differ between models.
    """
    tests = {pair: paired_test(values[pair[0]], values[pair[1]]) for pair in PAIRS if values.keys() >= set(pair)}
    adjusted = holm({"".join(pair): t.wilcoxon_p for pair, t in tests.items()})
    return tuple(Comparison(*pair, t, adjusted["".join(pair)]) for pair, t in tests.items())


def _dice_by_model(runs: Mapping[str, Sequence[RunTables]], test_set: str) -> dict[str, Dice]:
    """Model -> volume -> Dice averaged over the runs that have one; NaN where none has.

    Raises:
      InputError: a run was not scored on the test set, or the volumes differ between runs.
    """
    every = [t for own in runs.values() for t in own]
    for t in every:
        odd = sorted(t.volumes(test_set).keys() ^ every[0].volumes(test_set).keys())
        if odd:
            raise InputError(
                f"{t.run.folder} and {every[0].run.folder} were scored on different volumes of {test_set} "
                f"({', '.join(odd[:5])} in one only): evaluate both on the same data set."
            )
    return {m: _mean_dice(own, test_set) for m, own in runs.items()}


def _mean_dice(runs: Sequence[RunTables], test_set: str) -> dict[str, float]:
    out = {}
    for volume in sorted(runs[0].volumes(test_set)):
        known = [d for t in runs if math.isfinite(d := t.volumes(test_set)[volume].dice)]
        out[volume] = float(np.mean(known)) if known else math.nan
    return out
