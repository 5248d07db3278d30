"""The cells of a study: one training run each, with its settings and its place."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tlseg_jax.datasets.slice_spec import SliceSpec
from tlseg_jax.datasets.spec import AnySpec
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.studies.study import REMEDIES, Method, Study
from tlseg_jax.train.job_settings import JobSettings
from tlseg_jax.train.recipes import Recipe, get_recipe, get_slice_recipe
from tlseg_jax.train.usual import COHORT_STEPS, USUAL_FREEZE, network_for


@dataclasses.dataclass(frozen=True)
class Cell:
    """One training run of a study.

    Attributes:
      method: how.
      n: labelled scans; None for all.
      seed: of the parameters, the order and the choice of scans.
      fold: which persons are held out; None for the prepared split.
    """

    method: Method
    n: int | None
    seed: int
    fold: int | None

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.method.name}-{'all' if self.n is None else f'n{self.n}'}-seed{self.seed}"


@dataclasses.dataclass(frozen=True)
class PretrainCell:
    """One pre-training, which the cells of a seed share.

    Seeds that shared one would share its luck too, and no interval over seeds could tell that from a method's effect.

    Attributes:
      pretask: its data set.
      seed: of the parameters and the order, and of the cells that start from it.
      fold: whose persons are held out; None for the prepared split.
    """

    pretask: str
    seed: int
    fold: int | None

    @property
    def name(self) -> str:
        """Of its folder."""
        name = Path(self.pretask).stem
        return f"{name}{'' if self.fold is None else f'-fold{self.fold}'}-seed{self.seed}"


def cells_of(study: Study) -> tuple[Cell, ...]:
    """Every cell, methods inside seeds inside n, so that an unfinished sweep compares like with like."""
    return tuple(
        Cell(m, n, seed, seed % study.folds if study.folds else None)
        for n in study.n for seed in range(study.seeds) for m in study.methods
    )  # fmt: skip


def pretraining_of(cell: Cell) -> PretrainCell | None:
    """What a cell starts from; None where it starts from nothing."""
    return None if cell.method.pretask == "none" else PretrainCell(cell.method.pretask, cell.seed, cell.fold)


def recipe_of(study: Study, spec: AnySpec, stage: str) -> Recipe:
    """The recipe of a stage ("pretrain", "finetune") with what the study changes in it.

    Raises:
      InputError: no recipe has that name, or the recipe has no such value.
    """
    slices = isinstance(spec, SliceSpec)
    chosen = get_slice_recipe(study.recipe, stage) if slices else get_recipe(study.recipe)
    return _changed(chosen, study.recipe_values, f"The study {study.name}")


def _changed(recipe: Recipe, values: Mapping[str, Any], where: str) -> Recipe:
    known = {f.name: getattr(recipe, f.name) for f in dataclasses.fields(recipe) if f.name != "name"}
    for key, value in values.items():
        if key not in known:
            raise InputError(f"{where} changes '{key}', which no recipe has: choose from {', '.join(known)}.")
        kind = type(known[key])
        if not (isinstance(value, kind) or (kind is float and type(value) is int)):
            raise InputError(f"{where} sets {key} = {value!r} in the recipe: a {kind.__name__} is wanted.")
    return dataclasses.replace(recipe, **values)


def pretrain_job(study: Study, spec: AnySpec, built_in: bool, precision: str) -> JobSettings:
    """Settings of a pre-training, which always trains on all scans, with seed 0."""
    recipe = recipe_of(study, spec, "pretrain")
    # What a study changes may be for fine-tuning; these make sense there only.
    recipe = dataclasses.replace(recipe, l2sp=0.0, unfreezing="at_once")
    return _job(study, spec, recipe, precision, "pretrain", built_in)


def cell_job(study: Study, cell: Cell, spec: AnySpec, built_in: bool, precision: str) -> JobSettings:
    """Settings of a cell."""
    method = cell.method
    recipe = recipe_of(study, spec, "finetune")
    if method.remedy:
        recipe = _changed(recipe, REMEDIES[method.remedy].recipe, f"The remedy {method.remedy}")
    job = _job(study, spec, recipe, precision, "finetune", built_in)
    freeze = "none" if method.pretask == "none" else method.freeze or USUAL_FREEZE[spec.kind]
    return dataclasses.replace(
        job, n=cell.n, seed=cell.seed, freeze=freeze,
        frozen_bn="batch" if method.frozen_bn == "batch" else "running",
        head="reset" if method.head == "reset" else "keep",
    )  # fmt: skip


def _job(study: Study, spec: AnySpec, recipe: Recipe, precision: str, stage: str, built_in: bool) -> JobSettings:
    first = stage == "pretrain"
    steps = study.pretrain_steps if first else study.steps
    network = network_for(spec, study.network, precision)
    if isinstance(spec, SliceSpec):  # which count in epochs
        epochs = (study.pretrain_epochs if first else study.epochs) or recipe.epochs
        return JobSettings(network, recipe, steps, epochs=epochs, watch_every=5)
    if steps is None and built_in and recipe.name == "default":
        steps = COHORT_STEPS[stage]
    return JobSettings(network, recipe, steps or (recipe.pretrain_steps if first else recipe.finetune_steps))


def folder_of(sweep: Path, cell: Cell | PretrainCell) -> Path:
    """The run folder of a cell or of a pre-training."""
    return sweep / ("cells" if isinstance(cell, Cell) else "pretrain") / cell.name
