"""Phantom heads: procedural, seeded stand-ins for the five data sets of Table 1, with no download.

They exist so that every command runs on a machine with no data, and so that disease, scanner, space,
skull and label quality can be varied one at a time. They are drawings, not patients: a score on them
says nothing about real scans.

Structure, disease, space, skull, scanner and label quality each draw from random numbers of their
own, so that changing one leaves the others' contribution as it was.
"""

import dataclasses
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tlseg_jax.datasets.factors import POPULATION, is_factor_name, parse_name
from tlseg_jax.datasets.spec import DatasetSpec, Space
from tlseg_jax.geometry import Grid
from tlseg_jax.phantoms.phantom_anatomy import build_anatomy
from tlseg_jax.phantoms.phantom_labels import LabelQuality, draw_label
from tlseg_jax.phantoms.phantom_person import Disease, draw_parameters
from tlseg_jax.phantoms.phantom_scanner import Scanner, acquire, draw_pose, grid_for, world_points
from tlseg_jax.phantoms.phantom_shapes import generator_of
from tlseg_jax.runtime.errors import InputError

__all__ = ["Phantom", "PhantomSettings", "draw_person", "grid_for", "settings_for"]

Structure = Literal["caudate", "lateral ventricle", "whole brain"]
Skull = Literal["kept", "stripped"]


@dataclasses.dataclass(frozen=True)
class PhantomSettings:
    """What a phantom data set is; each field can be changed without touching what the others do.

    Attributes:
      population: whose heads; the same person number of one population is the same head everywhere.
      structure: what the label marks.
      disease: "HD" shrinks the caudates, "AD" widens the ventricles, "healthy" neither.
      space: "MNI305" (registered, but for a small error) or "native" (turned, shifted, its own size).
      skull: "kept", or "stripped": zero outside the brain.
      scanner: contrast, intensity scale, bias field, noise and resolution.
      label_quality: "exact", "manual" (a rater's slight wander) or "automatic" (a program's errors).
    """

    population: str = "hdt"
    structure: Structure = "caudate"
    disease: Disease = "HD"
    space: Space = "MNI305"
    skull: Skull = "kept"
    scanner: Scanner = "trial"
    label_quality: LabelQuality = "manual"


@dataclasses.dataclass(frozen=True, eq=False)
class Phantom:
    """One scan of one person.

    Attributes:
      image: (x, y, z) float32, 0 or more, arbitrary units.
      label: (x, y, z) uint8, 1 in the structure.
      brain: (x, y, z) bool, the brain with its sulci and ventricles.
    """

    image: NDArray[np.float32]
    label: NDArray[np.uint8]
    brain: NDArray[np.bool_]


_BUILT_IN = {
    "hdt_c": PhantomSettings(),
    "hdt_v": PhantomSettings(structure="lateral ventricle"),
    "hdt_wb": PhantomSettings(structure="whole brain", space="native"),
    "mal_c": PhantomSettings("mal", disease="AD", space="native", scanner="registry", label_quality="automatic"),
    "oas_c": PhantomSettings("oas", disease="healthy", skull="stripped", scanner="survey"),
}


def settings_for(spec: DatasetSpec) -> PhantomSettings:
    """The phantom that stands in for one of the paper's data sets, or that a factor data set is.

    Raises:
      InputError: the data set is neither one of the five nor named by its levels (`datasets.factors`).
    """
    if is_factor_name(spec.name):
        levels = parse_name(spec.name).to_dict()
        return PhantomSettings(POPULATION, label_quality=levels.pop("labels"), **levels)  # type: ignore[arg-type]
    if spec.name not in _BUILT_IN:
        raise InputError(
            f"There is no built-in cohort for the data set '{spec.name}' (only for "
            f"{', '.join(_BUILT_IN)}): prepare your own scans with 'tlseg prepare' "
            "and give their folder with `store`."
        )
    return _BUILT_IN[spec.name]


def draw_person(settings: PhantomSettings, person: int, seed: int, grid: Grid) -> Phantom:
    """One person's scan and label.

    Args:
      grid: where to draw: MNI305 mm, or, in native space, mm about the middle of the head.
    """
    who = (seed, person, settings.population)
    pose = draw_pose(settings.space, generator_of(*who, "pose", settings.space))
    points = world_points(grid, pose)
    width = float(np.prod(grid.spacing) ** (1 / 3) * abs(np.linalg.det(pose[:3, :3])) ** (1 / 3))
    parameters = draw_parameters(settings.population, settings.disease, person, seed)
    anatomy = build_anatomy(parameters, points, width)
    image = acquire(anatomy, settings.scanner, grid, generator_of(*who, "scanner", settings.scanner))
    if settings.skull == "stripped":
        image *= anatomy.brain
    distance, along = {
        "caudate": (anatomy.caudate, anatomy.along["caudate"]),
        "lateral ventricle": (anatomy.ventricle, anatomy.along["ventricle"]),
        "whole brain": (anatomy.parenchyma, None),
    }[settings.structure]
    rng = generator_of(*who, "label", settings.structure)
    label = draw_label(distance, along, points, grid.spacing, settings.label_quality, rng)
    return Phantom(image, label, anatomy.brain)
