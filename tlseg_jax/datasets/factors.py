"""What a pre-training data set can differ in, and designs that say which differences to try.

Weatheritt et al. (2020, discussion) name what may make a pre-task a good one: its structure, the disease, the
space of the scans, whether the skull is there, the scanner, and who drew the labels. The paper's data sets differ
in several of these at once. On the built-in cohort each can be set alone: a data set is named by its six levels,
as in "f_caudate_AD_native_kept_registry_automatic", and can be drawn, prepared and pre-trained on by that name.

All of them show the same people, who belong to no other data set: none of those that the target task is tested
on has been seen before.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

from tlseg_jax.datasets.papers import PAPERS
from tlseg_jax.datasets.spec import DatasetSpec, Shape3, Space
from tlseg_jax.runtime.choose import choose
from tlseg_jax.runtime.errors import InputError

FACTORS: Mapping[str, tuple[str, ...]] = {
    "structure": ("caudate", "lateral ventricle", "whole brain"),
    "disease": ("HD", "AD", "healthy"),
    "space": ("MNI305", "native"),
    "skull": ("kept", "stripped"),
    "scanner": ("trial", "registry", "survey"),
    "labels": ("manual", "automatic"),
}
"""Factor -> its levels; the first is that of the target task, HDT-C."""

POPULATION = "pre"
"""Whose heads: the phantoms' population, which no data set of the paper draws from."""

PREFIX = "f"

_SHORT = {"lateral ventricle": "ventricle", "whole brain": "brain"}
"""Levels as they are written in a folder's name."""

_NATIVE_VENTRICLE: Shape3 = (104, 136, 112)
"""Voxels. The paper has no ventricles in native space: HDT-V's patch, wider by the 8 voxels by which MAL-C's is
wider than HDT-C's."""


@dataclasses.dataclass(frozen=True)
class Levels:
    """One pre-training data set, by the level of each factor in `FACTORS`.

    Raises:
      InputError: a level that its factor does not have.
    """

    structure: str = "caudate"
    disease: str = "HD"
    space: str = "MNI305"
    skull: str = "kept"
    scanner: str = "trial"
    labels: str = "manual"

    def __post_init__(self) -> None:
        for factor, levels in FACTORS.items():
            if getattr(self, factor) not in levels:
                raise InputError(
                    f"The factor '{factor}' has no level '{getattr(self, factor)}': choose from {', '.join(levels)}."
                )

    @property
    def name(self) -> str:
        """Of the data set and its folder; `parse_name` reads it back."""
        return "_".join([PREFIX, *(_SHORT.get(level, level) for level in self.to_dict().values())])

    def to_dict(self) -> dict[str, str]:
        """Factor -> level, in the order of `FACTORS`."""
        return {factor: getattr(self, factor) for factor in FACTORS}


def is_factor_name(name: str) -> bool:
    """Whether a name has the form of a factor data set's; its levels may still be wrong."""
    return name.startswith(f"{PREFIX}_") and name.count("_") == len(FACTORS)


def parse_name(name: str) -> Levels:
    """The levels of a data set by its name.

    Raises:
      InputError: another form, or a level that there is not.
    """
    if not is_factor_name(name):
        raise InputError(
            f"'{name}' is not the name of a factor data set: write {PREFIX}_ and a level each of "
            f"{', '.join(FACTORS)}, as in {MAL_C.name}."
        )
    long = {short: level for level, short in _SHORT.items()}
    words = name.split("_")[1:]
    return Levels(**{f: long.get(word, word) for f, word in zip(FACTORS, words, strict=True)})


def factor_spec(levels: Levels) -> DatasetSpec:
    """The data set of these levels.

    Volume and patch are those of the paper's data set with that structure and space (Table 1): HDT-C, HDT-V and
    MAL-C, and for whole brains the random patches of HDT-WB in either space.
    """
    space: Space = "native" if levels.space == "native" else "MNI305"
    if levels.structure == "whole brain":
        base = PAPERS["hdt_wb"]
    elif space == "native":
        base = PAPERS["mal_c"]
    else:
        base = PAPERS["hdt_c" if levels.structure == "caudate" else "hdt_v"]
    of_space = (base if base.volumes.space == space else PAPERS["hdt_c"]).volumes
    patch = base.volumes.patch_size
    if space == "native" and levels.structure == "lateral ventricle":
        patch = _NATIVE_VENTRICLE
    counts = PAPERS["hdt_c"].volumes  # the same for all, so that all have one split
    return base.changed(
        name=levels.name,
        structures=(levels.structure,),
        space=space,
        dimensions=of_space.dimensions,
        spacing=of_space.spacing,
        patch_size=patch,
        skull_strip=levels.skull == "stripped",
        train_count=counts.train_count,
        test_count=counts.test_count,
        split_group="factors",
    )


MAL_C = Levels("caudate", "AD", "native", "kept", "registry", "automatic")
"""The paper's MAL-C, but for its people."""

EXTRA_POINTS: Mapping[str, Levels] = {"mal_c": MAL_C, "mal_c_mni305": dataclasses.replace(MAL_C, space="MNI305")}
"""Data sets with a name. The second is the paper's question: MAL-C, "initially trained in MNI space"."""

LOW: Mapping[str, str] = Levels().to_dict()
"""The level of each factor that two-level designs write as -1: the target's own."""

HIGH: Mapping[str, str] = MAL_C.to_dict() | {"structure": "lateral ventricle", "skull": "stripped"}
"""The level written as +1: MAL-C's where it differs from the target's."""


TWO_LEVEL: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "full": {},
    "half": {"labels": ("structure", "disease", "space", "skull", "scanner")},
    "quarter": {"scanner": ("structure", "space", "skull"), "labels": ("structure", "disease", "skull")},
}
"""Regular two-level designs in the six factors (Box, Hunter & Hunter 2005, chapter 6), by their generators: factor ->
the factors whose product its column is; the others are varied in full. 2^6 of 64 data sets; 2^(6-1) of 32, resolution
VI, where no two-way interaction is confounded with another or with a main effect; and 2^(6-2) of 16, of resolution IV,
where some are with one another. All hold the target's own levels and MAL-C's."""


def signs(name: str) -> tuple[dict[str, int], ...]:
    """A two-level design as -1 and +1: factor -> sign, a dict a run.

    Raises:
      InputError: no design has that name.
    """
    generators = choose("two-level design", name, TWO_LEVEL)
    free = [f for f in FACTORS if f not in generators]
    rows = []
    for combination in itertools.product((-1, 1), repeat=len(free)):
        row = dict(zip(free, combination, strict=True))
        for factor, of in generators.items():
            # A word's sign makes the row of all -1, the target's own levels, a run of the design.
            row[factor] = (-1) ** (len(of) + 1)
            for other in of:
                row[factor] *= row[other]
        rows.append({f: row[f] for f in FACTORS})
    return tuple(rows)


def design(name: str, extra: Sequence[str] = ()) -> tuple[Levels, ...]:
    """The data sets of a design, and of the named points that it lacks.

    Args:
      name: "full", "half" or "quarter" of two levels a factor (`TWO_LEVEL`), "every" for all levels of all
        factors, "points" for the named points alone.
      extra: names in `EXTRA_POINTS`.

    Raises:
      InputError: nothing has that name.
    """
    names = (*TWO_LEVEL, "every", "points")
    if name not in names:
        raise InputError(f"There is no design named '{name}': choose from {', '.join(names)}.")
    points = tuple(choose("point of the factors", point, EXTRA_POINTS) for point in extra)
    if name == "points":
        runs: tuple[Levels, ...] = tuple(EXTRA_POINTS.values())
    elif name == "every":
        runs = tuple(Levels(*levels) for levels in itertools.product(*FACTORS.values()))
    else:
        runs = tuple(Levels(**{f: (HIGH if s > 0 else LOW)[f] for f, s in row.items()}) for row in signs(name))
    return tuple(dict.fromkeys((*runs, *points)))
