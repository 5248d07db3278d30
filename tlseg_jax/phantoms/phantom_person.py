"""Who a phantom is: the parameters of one person's anatomy, and what disease does to them."""

import dataclasses
from typing import Literal

import numpy as np

from tlseg_jax.phantoms.phantom_shapes import Field, Floats, generator_of, random_field

Disease = Literal["healthy", "HD", "AD"]

WARP_MM = ((26.0, 2.0), (12.0, 0.7))
"""Smoothness and standard deviation, in mm, of each octave of the random warp."""


@dataclasses.dataclass(frozen=True, eq=False)
class Person:
    """Parameters of one head; lengths in mm, factors without unit.

    Attributes:
      warp: three fields, added to the coordinates.
      folds: its zero set is where the sulci lie; fold_step: its gradient's inverse, in mm.
      fold_depth: how the depth of the sulci varies over the cortex.
      texture: slow variation of the signal within tissue.
      cortex: thickness of the cortical ribbon.
      sulcus: half width of a sulcus at its bottom.
      sulcus_depth: mean depth of the sulci.
      subarachnoid: CSF between brain and skull.
      skull: thickness of the skull.
      scalp: thickness of skin and fat.
      caudate: factor on the caudates' radii.
      ventricle: factor on the lateral ventricles' radii.
      horn: factor on the occipital horns' radii, on top of `ventricle`.
      hippocampus: factor on its radii.
      third: half width of the third ventricle.
      asymmetry: relative difference of right and left radii: ventricle, then caudate.
      shift: (6, 3) small displacements of the deep structures and of the curves' knots.
    """

    warp: tuple[Field, ...]
    folds: Field
    fold_depth: Field
    texture: Field
    cortex: float
    sulcus: float
    sulcus_depth: float
    subarachnoid: float
    skull: float
    scalp: float
    caudate: float
    ventricle: float
    horn: float
    hippocampus: float
    third: float
    asymmetry: tuple[float, float]
    shift: Floats


def draw_parameters(population: str, disease: Disease, person: int, seed: int) -> Person:
    """One person of a population, as disease has left them.

    The same person is drawn whatever the disease: only what the disease acts on differs. In
    Huntington's disease the caudates lose 25 to 50% of their volume and the ventricles gain; in
    Alzheimer's the ventricles gain most, the sulci widen and the hippocampi shrink.
    """
    rng = generator_of(seed, person, population, "anatomy")
    severity = float(generator_of(seed, person, population, "severity").uniform(0.4, 1.0))
    hd = severity if disease == "HD" else 0.0
    ad = severity if disease == "AD" else 0.0
    warp = tuple(_sum_of_octaves(rng) for _ in range(3))
    age = float(rng.uniform(0, 1))

    def around(mean: float, sd: float) -> float:
        return mean * float(np.exp(sd * np.clip(rng.standard_normal(), -2.2, 2.2)))

    return Person(
        warp=warp,
        folds=_distance_like(random_field(rng, around(3.5, 0.06), 2.5)),
        fold_depth=random_field(rng, 14.0, 6.0),
        texture=random_field(rng, 6.0, 4.0),
        cortex=around(3.3, 0.05) - 0.2 * age - 0.35 * ad,
        sulcus=around(0.35, 0.15) + 0.35 * age + 0.25 * hd + 0.55 * ad,
        sulcus_depth=around(16.0, 0.08),
        subarachnoid=around(2.2, 0.15) + 1.0 * age + 0.8 * hd + 1.2 * ad,
        skull=around(6.0, 0.12),
        scalp=around(6.0, 0.18),
        caudate=around(1.0, 0.035) * (1 - 0.25 * hd - 0.03 * ad),
        ventricle=around(0.87, 0.1) * (1 + 0.12 * age + 0.14 * hd + 0.36 * ad),
        horn=around(0.9, 0.2),
        hippocampus=around(1.0, 0.05) * (1 - 0.22 * ad),
        third=around(1.3, 0.15) + 0.8 * hd + 1.2 * ad,
        asymmetry=(float(rng.normal(0, 0.05)), float(rng.normal(0, 0.02))),
        shift=rng.normal(0, 0.7, (6, 3)).astype(np.float32),
    )


def _sum_of_octaves(rng: np.random.Generator) -> Field:
    octaves = [(random_field(rng, smooth, 5.0), mm) for smooth, mm in WARP_MM]
    return Field(sum(np.clip(f.values, -3, 3) * np.float32(mm) for f, mm in octaves), 5.0)  # type: ignore[arg-type]


def _distance_like(field: Field) -> Field:
    """The field over the length of its own gradient: about the distance in mm to its zero set."""
    gx, gy, gz = np.gradient(field.values, field.step)
    slope = np.sqrt(gx * gx + gy * gy + gz * gz)
    floor = 0.3 * float(slope.mean())
    return Field(np.clip(field.values / np.maximum(slope, floor), -12, 12), field.step)
