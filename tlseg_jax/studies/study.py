"""What a study is, as data: methods by numbers of labelled scans by seeds, read from a TOML file.

name = "clinic"            # of the sweep's folder
task = "hdt_c"             # the target data set
unseen = ["oas_c"]         # test sets of other sources
n = [2, 4, 8, "all"]       # labelled scans
seeds = 3
folds = 0                  # 5: cross-validation over persons in place of the prepared split
network = "unet_fast"      # optional, as are recipe, steps, epochs, pretrain_steps, pretrain_epochs
sections = ["target"]      # optional: of the report, by name and in order; none: the usual ones

[titles]                   # optional: headings of sections in place of their own
target = "Our clinic"

[recipe_values]            # optional: what to change in the recipe
learning_rate = 0.01

[[methods]]
name = "V-FT"
pretask = "hdt_v"          # or "none"; or pretrained = "brain": a model that comes with the package, or a run's folder
freeze = "encoder"         # optional
remedies = ["l2sp"]        # optional: a further method for each, compared with this one
"""

import dataclasses
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

from tlseg_jax.datasets.factors import design
from tlseg_jax.datasets.fields import check_folder_name, check_known, check_none_missing, value_as
from tlseg_jax.runtime.bounds import Count, Labelled, Positive
from tlseg_jax.runtime.choose import choose
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.train.step import FrozenBN
from tlseg_jax.transfer.freeze import FREEZING, Freeze
from tlseg_jax.transfer.restore import Head

L2SP = 0.01
"""Strength of the remedy "l2sp"."""

LAYER_DECAY = 0.75
"""Of the remedy "layerwise": a `unet_fast`'s first level learns at 0.75^5 = 0.24 of the head's rate."""

MIXED = 0.3
"""Share of the remedy "mix_synthetic"."""

ADABN = 0.3
"""Share of the remedy "adabn": less than half, as a single scan's statistics scatter."""

EMA = 0.99
"""Decay of the remedy "ema": about the last hundred steps count."""


@dataclasses.dataclass(frozen=True)
class Remedy:
    """What a remedy changes in the method that it is compared with.

    Attributes:
      freeze: freezing in place of the method's; None keeps it.
      recipe: changes of the recipe.
      adabn: share of each scan's own statistics in scoring (`models.adabn`); the training is as the method's.
    """

    freeze: Freeze | None
    recipe: Mapping[str, Any]
    adabn: float = 0.0


REMEDIES: Mapping[str, Remedy] = {
    "staged": Remedy("none", {"unfreezing": "staged"}),
    "l2sp": Remedy("none", {"l2sp": L2SP}),
    "randomised": Remedy(None, {"randomisation": True}),
    "warmup_all": Remedy("none", {"unfreezing": "warmup_all"}),
    "layerwise": Remedy("none", {"layer_decay": LAYER_DECAY}),
    "norm_only": Remedy("norm_only", {}),
    "ema": Remedy(None, {"ema": EMA}),
    "mix_synthetic": Remedy(None, {"mix_synthetic": MIXED}),
    "adabn": Remedy(None, {}, ADABN),
}
"""Against what fine-tuned models lose on unseen data."""


@dataclasses.dataclass(frozen=True)
class Method:
    """One way to train.

    Attributes:
      name: as figures show it.
      pretask: data set of the pre-training; "none" trains end to end; of a pretrained model its name.
      pretrained: folder of a model that all seeds start from; a file may give an address or a name in its place, which
        the sweep's call looks up; "": there is none.
      freeze: a name of `transfer.freeze.FREEZING`; None: what the papers freeze, and "none" without a pre-task.
      remedy: a name of `REMEDIES`, or "".
      baseline: method that a remedy is compared with, or "".
      frozen_bn: see `train.step.make_step_function`.
      head: see `transfer.restore.restore_pretrained`.
      factors: factor -> level of the pre-task, in a factor study.
    """

    name: str
    pretask: str = "none"
    pretrained: str = ""
    freeze: Freeze | None = None
    remedy: str = ""
    baseline: str = ""
    frozen_bn: FrozenBN = "running"
    head: Head = "keep"
    factors: Mapping[str, str] = dataclasses.field(default_factory=dict, hash=False)


@dataclasses.dataclass(frozen=True)
class Study:
    """A grid of methods by n by seeds.

    Attributes:
      name: of the sweep's folder.
      task: the target data set.
      methods: in the order that figures show them.
      n: numbers of labelled scans, as in 2,4,8,all; None for all.
      seeds: runs of each method and n.
      unseen: test sets of other sources.
      folds: cross-validation over persons: seed s is tested on fold s modulo this; 0: the prepared split.
      network: None takes the kind of data's usual.
      recipe: name of the recipe.
      recipe_values: changes of the recipe; of pre-training too, but for remedies and, of slices, the learning rate and
        the batch size, which are the target's (`jobs.make_pretrain_job`).
      steps: of fine-tuning; None takes the recipe's.
      epochs: slices: of fine-tuning.
      pretrain_steps: of pre-training.
      pretrain_epochs: slices: of pre-training.
      cohort_spacing: mm, of the built-in cohort; None takes its usual.
      cohort_train: training subjects a data set of the built-in cohort; None takes its usual number.
      cohort_test: its test subjects.
      label_maps: folder of whole-head label maps with FreeSurfer's values, one a person, that the images of factor data
        sets are drawn from; not given: they show schematic heads.
      sections: of the report, by the names of `report.registry.SECTIONS`; empty takes the usual ones.
      titles: section -> heading in place of its own.
    """

    name: str
    task: str
    methods: tuple[Method, ...]
    n: tuple[Labelled, ...]
    seeds: Positive = 1
    unseen: tuple[str, ...] = ()
    folds: Count = 0
    network: str | None = None
    recipe: str = "default"
    recipe_values: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)
    steps: Positive | None = None
    epochs: Positive | None = None
    pretrain_steps: Positive | None = None
    pretrain_epochs: Positive | None = None
    cohort_spacing: float | None = None
    cohort_train: Positive | None = None
    cohort_test: Positive | None = None
    label_maps: str | None = None
    sections: tuple[str, ...] = ()
    titles: Mapping[str, str] = dataclasses.field(default_factory=dict, hash=False)

    @property
    def pretasks(self) -> tuple[str, ...]:
        """What has to be pre-trained, in order."""
        return tuple(dict.fromkeys(m.pretask for m in self.methods if m.pretask != "none" and not m.pretrained))


def read_study_file(path: Path) -> Study:
    """A study from a TOML file (see the head of this module).

    Raises:
      InputError: the file is missing, is no TOML, or a field is missing, unknown or of the wrong kind.
    """
    try:
        d = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"The study {path} does not exist: name a study, or a TOML file that is there.") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
        raise InputError(f"The study {path} cannot be read ({e}): correct the file.") from None
    return study_from_dict(d, str(path))


_STUDY: Mapping[str, Any] = get_type_hints(Study, include_extras=True) | {
    **dict.fromkeys(("recipe_values", "titles", "factors"), dict),
    "methods": list,
}
_METHOD: Mapping[str, Any] = {
    **{
        k: v
        for k, v in get_type_hints(Method, include_extras=True).items()
        if k not in ("remedy", "baseline", "factors")
    },
    "remedies": tuple[str, ...],
}
"""Field of a file -> its type."""


def _checked(d: Mapping[str, Any], hints: Mapping[str, Any], needed: Sequence[str], where: str) -> dict[str, Any]:
    """The fields of a table as their types have them. Raises InputError: one is missing, unknown or of another type."""
    check_known(d, hints, where)
    check_none_missing([key for key in needed if key not in d], where)
    check_folder_name(str(d["name"]), where)
    return {k: value_as(hints[k], v, f"{where}: {k} = {v!r}") for k, v in d.items()}


def study_from_dict(d: Mapping[str, Any], where: str) -> Study:
    """A study from plain values, as a TOML file holds them; `where` is their source, for messages.

    Raises:
      InputError: a field is missing, unknown or of the wrong kind; it is named.
    """
    given = _checked(d, _STUDY, ("name", "task", "n"), where)
    if not given["n"]:
        raise InputError(f'{where}: n = [] must list whole numbers of labelled scans, as [2, 4, "all"].')
    methods = [m for i, of in enumerate(d.get("methods", ())) for m in _methods(of, f"{where}, method {i + 1}")]
    if "factors" in d:
        methods += _factor_methods(d["factors"], where)
    if not methods:
        raise InputError(f"{where} has no methods: add a [[methods]] table with a name and a pretask.")
    names = [m.name for m in methods]
    twice = next((n for n in names if names.count(n) > 1), None)
    if twice:
        raise InputError(f"{where}: two methods are named '{twice}': give each its own name.")
    given.pop("factors", None)
    for section, title in given.get("titles", {}).items():
        value_as(str, title, f"{where}: titles.{section} = {title!r}")
    return Study(**given | {"methods": tuple(methods), "n": tuple(dict.fromkeys(given["n"]))})


def _methods(d: Any, where: str) -> list[Method]:
    """A method of the file and one for each of its remedies."""
    if not isinstance(d, dict):
        raise InputError(f"{where} is not a table: write [[methods]] above its fields.")
    given = _checked(d, _METHOD, ("name",), where)
    remedies = given.pop("remedies", ())
    if "pretrained" in d:
        if "pretask" in d:
            raise InputError(f"{where} has a pretask and a pretrained model: a method starts from one, leave one out.")
        given["pretask"] = Path(d["pretrained"]).name
    plain = Method(**given)
    if remedies and plain.pretask == "none":
        raise InputError(f"{where} has remedies and no pretask: remedies are for pre-trained models.")
    found = [plain]
    for name in remedies:
        own = {"name": f"{plain.name}-{name}", "remedy": name, "baseline": plain.name}
        try:
            freeze = choose("remedy", name, REMEDIES).freeze or plain.freeze
        except InputError as e:
            raise InputError(f"{where}: {e}") from None
        found.append(dataclasses.replace(plain, freeze=freeze, **own))
    return found


def _factor_methods(d: Mapping[str, Any], where: str) -> list[Method]:
    """A method for each data set of a factorial design: [factors] design = "half", points = ["mal_c"]."""
    check_known(d, ("design", "points", "freeze"), f"{where}, [factors],")
    runs = design(str(d.get("design", "half")), tuple(str(p) for p in d.get("points", ())))
    freeze: Freeze = d.get("freeze", "encoder")
    choose("freezing", str(freeze), FREEZING)
    return [Method(r.name, r.name, freeze=freeze, factors=r.to_dict()) for r in runs]
