"""The one builder of runs: from what a user says (`settings`) and the data to a training's settings and its name."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from tlseg_jax.datasets.fields import value_as
from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.runtime.bounds import Labelled
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.studies.settings import Missing, Start, Training
from tlseg_jax.studies.workplace import Workplace
from tlseg_jax.train.job_settings import JobSettings
from tlseg_jax.train.losses import LOSSES, UNSMOOTHED
from tlseg_jax.train.recipes import OPTIMISERS, Phase, Recipe, get_recipe
from tlseg_jax.train.remedies import FIELDS as REMEDIES
from tlseg_jax.train.remedies import remedy_name, without_remedies
from tlseg_jax.train.usual import COHORT_STEPS, network_for, usual_freeze, usual_network

SLICES_ONLY = ("epochs", "slice_channels", "watch_every")
"""Fields of `Training` that would do nothing with volumes."""


def make_job(
    place: Workplace, spec: DatasetSpec, phase: Phase, training: Training, start: Start | None = None
) -> JobSettings:
    """The settings of one training run.

    Args:
      place: where; the built-in cohort has lengths of its own.
      spec: of the data.
      phase: which of the recipe's lengths and, of slices, which recipe of its name.
      training: how to train.
      start: what becomes of a pre-trained start; None: there is none.

    Raises:
      InputError: nothing has a name that was given, or a value does not go with this kind of data.
    """
    value_as(Labelled, training.n, f"`n={training.n}`")
    recipe = recipe_for(spec, phase, training.recipe, training.recipe_values)
    _refuse_idle(place, spec, training)
    slices = spec.kind == "slices"
    network = network_for(
        spec, training.network or usual_network(spec, recipe.name), training.precision, training.slice_channels
    )
    steps = training.steps if slices else training.steps or _usual_steps(place, phase, recipe)
    freeze = "none" if start is None else start.freeze or usual_freeze(spec, recipe.name)
    start = start or Start()
    return JobSettings(
        network,
        recipe,
        steps,
        n=training.n,
        seed=training.seed,
        freeze=freeze,
        frozen_bn=start.frozen_bn,
        head=start.head,
        validation=training.validation,
        validate_every=training.validate_every,
        patience=training.patience,
        checkpoint_every=training.checkpoint_every,
        threads=training.threads,
        workers=training.input_workers,
        epochs=(training.epochs or recipe.epochs) if slices else 0,
        sampling=training.sampling,
        watch_every=training.watch_every if slices else 0,
    )


def make_pretrain_job(place: Workplace, spec: DatasetSpec, training: Training, missing: Missing) -> JobSettings:
    """The settings of the pre-training that a run of `training` starts from.

    It trains on all scans, and without what is asked for on the target's: validation and remedies. Of slices,
    learning rate, batch size and epochs of `training` are the target's: the report trains the pre-task otherwise.

    It is `missing` that says in what it is otherwise.

    Raises:
      InputError: see `make_job`.
    """
    values = dict(training.recipe_values)
    if spec.kind == "slices":
        values = {k: v for k, v in values.items() if k not in ("learning_rate", "batch_size")}
        if missing.pretrain_learning_rate is not None:
            values["learning_rate"] = missing.pretrain_learning_rate
    else:
        for name in ("pretrain_epochs", "pretrain_learning_rate"):
            if getattr(missing, name) is not None:
                raise _idle(name, spec)
    first = dataclasses.replace(
        training,
        n=None,
        steps=missing.pretrain_steps,
        epochs=missing.pretrain_epochs,
        recipe_values=values,
        validation=0,
        patience=0,
    )
    job = make_job(place, spec, "pretrain", first)
    return dataclasses.replace(job, recipe=without_remedies(job.recipe))


def recipe_for(spec: DatasetSpec, phase: Phase, name: str, values: Mapping[str, Any]) -> Recipe:
    """A recipe for a kind of data and a phase, with some of its values changed.

    Raises:
      InputError: no recipe has that name or such a value, or a value is of the wrong kind, for other data or of what
        the recipe does not do.
    """
    chosen = get_recipe(name, spec.kind, phase)
    known = {f.name: getattr(chosen, f.name) for f in dataclasses.fields(chosen) if f.name != "name"}
    for key, value in values.items():
        if key not in known:
            raise InputError(f"recipe_values changes '{key}', which no recipe has: choose from {', '.join(known)}.")
        kind = type(known[key])
        if not (isinstance(value, kind) or (kind is float and type(value) is int)):
            raise InputError(f"recipe_values sets {key} = {value!r}: a {kind.__name__} is wanted.")
        if key == "loss" and value not in LOSSES:
            raise InputError(f"`loss={value}` is no loss: choose from {', '.join(LOSSES)}.")
    if len(spec.structures) > 1 and "label_smoothing" not in values:
        # It gains with one structure and loses with sixteen (benchmarks/recipe.md).
        chosen = dataclasses.replace(chosen, label_smoothing=0.0)
    recipe = dataclasses.replace(chosen, **values)
    idle = {
        "label_smoothing": (recipe.loss in UNSMOOTHED, f"the cross-entropy, and `loss={recipe.loss}` has none"),
        "momentum": (not OPTIMISERS.get(recipe.optimiser, True), f"Muon, and `optimiser={recipe.optimiser}`"),
        "affine_strength": (not recipe.affine_augmentation, "`affine_augmentation`, which is off"),
    }
    for key, (off, of) in idle.items():
        if off and values.get(key):
            raise InputError(f"`{key}={values[key]}` is of {of}: leave one of them out.")
    return recipe


def run_name(spec: DatasetSpec, training: Training, *parts: str, remedies: bool = True) -> str:
    """A run folder's name; what is not the default and makes another model is in it.

    Args:
      parts: that it begins with.
      remedies: whether the remedies (`train.remedies`) of `training` are for this run.
    """
    values = training.recipe_values
    accumulate = values.get("accumulate", 1)
    usual = (
        (training.network, usual_network(spec, training.recipe)),
        (training.recipe, "default"),
        (values.get("loss"), None),
        (training.sampling, "all"),
        (f"{training.slice_channels}channels", "1channels"),
        (training.precision, "float32"),
        (f"accumulate{accumulate}", "accumulate1"),
    )
    extra = [v for v, default in usual if v is not None and v != default]
    asked = {k: v for k, v in values.items() if k in REMEDIES}
    if remedies and (name := remedy_name(get_recipe("default").override(**asked))):
        extra.append(name)
    return "-".join([*parts, *extra, f"seed{training.seed}"])


def labelled_name(n: int | None) -> str:
    """Of a number of labelled scans, in names of runs."""
    return "all" if n is None else f"n{n}"


def check_precision(job: JobSettings) -> None:
    """Refuse to train in bfloat16 on a CPU, where it gains nothing; what another device trained may be scored there.

    Raises:
      InputError: it would be trained so.
    """
    if job.network.dtype == "bfloat16" and jax.default_backend() == "cpu":
        raise InputError("`precision=bfloat16` is slower on a CPU and saves no memory there: leave it out.")


def _usual_steps(place: Workplace, phase: Phase, recipe: Recipe) -> int:
    if place.store is None and recipe.name == "default":
        return COHORT_STEPS[phase]
    return recipe.pretrain_steps if phase == "pretrain" else recipe.finetune_steps


def _refuse_idle(place: Workplace, spec: DatasetSpec, training: Training) -> None:
    """Refuse what was given and would do nothing with this kind of data."""
    if spec.kind == "slices":
        idle = ["tiles"] if place.tiles != "gaussian" else []
    else:
        only = SLICES_ONLY if spec.volumes.random_patch else (*SLICES_ONLY, "sampling")
        idle = [name for name in only if getattr(training, name) != getattr(Training, name)]
    if idle:
        raise _idle(idle[0], spec)


def _idle(name: str, spec: DatasetSpec) -> InputError:
    return InputError(f"`{name}` does not go with {spec.kind} such as {spec.name}: leave it out.")
