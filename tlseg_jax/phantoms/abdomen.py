"""Procedural abdomens: seeded stand-ins for the liver report's CTs and MRIs, with no download.

They exist so that every command runs on a machine with no data. CT and MRI show different persons of one
population: anatomy is shared and contrast is not, as between LiTS and the report's own scans. They are
drawings, not patients: a score on them says nothing about real scans.
"""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.geometry import Affine
from tlseg_jax.phantoms.abdomen_anatomy import build_abdomen
from tlseg_jax.phantoms.abdomen_person import POPULATION, draw_abdomen_person
from tlseg_jax.phantoms.abdomen_scanner import acquire_abdomen, draw_sampling, in_file_axes, thick_slices, thin_grid
from tlseg_jax.phantoms.abdomen_tumours import draw_lesions
from tlseg_jax.phantoms.phantom_scanner import world_points
from tlseg_jax.phantoms.phantom_shapes import generator_of
from tlseg_jax.runtime.errors import InputError

_REDUCED: dict[str, dict[str, Any]] = {
    "lits": {
        "pixels": (96, 96),
        "with_structure": 12,
        "without_structure": 8,
        "max_slices": 0,
        "test_slices": 0,
        "test_volumes": 3,
    },
    "mri_artery": {"pixels": (80, 65), "test_volumes": 4},
}

_DRAWN = {"lits": ("liver", "tumour"), "mri_artery": ("tumour",)}
"""What the label of each data set shows."""


@dataclasses.dataclass(frozen=True, eq=False)
class AbdomenScan:
    """One scan of one person, in the axes of its file.

    Attributes:
      image: (i, j, k) int16, HU or arbitrary units.
      label: (i, j, k) uint8: CT 1 liver and 2 tumour; MRI 1 tumour.
      affine: (4, 4), voxel index -> RAS mm.
    """

    image: NDArray[np.int16]
    label: NDArray[np.uint8]
    affine: Affine


def cohort_spec(spec: DatasetSpec) -> DatasetSpec:
    """A data set of the liver report at the size of its built-in cohort.

    Raises:
      InputError: there is no built-in cohort for this data set or structure.
    """
    check_drawn(spec)
    return spec.changed(**_REDUCED[spec.name])


def check_drawn(spec: DatasetSpec) -> None:
    """Raise an InputError where no built-in cohort stands in for the data set."""
    if spec.name not in _DRAWN:
        raise InputError(
            f"There is no built-in cohort for the data set '{spec.name}' (only for {' and '.join(_DRAWN)}): "
            "prepare your own scans with 'tlseg prepare' and give their folder with `store`."
        )
    for structure in spec.structures:
        if structure not in _DRAWN[spec.name]:
            raise InputError(
                f"The built-in cohort of '{spec.name}' has no label of the structure '{structure}': "
                f"ask for {' or '.join(_DRAWN[spec.name])}, or prepare your own scans."
            )


def drawn_person(spec: DatasetSpec, volume: int) -> int:
    """Whom a data set's volume shows: CT and MRI share nobody."""
    return 2 * volume + (spec.planes.modality == "MR")


def draw_abdomen(spec: DatasetSpec, person: int, seed: int) -> AbdomenScan:
    """One person's scan and label.

    Args:
      spec: the modality and the pixels of a slice; see `cohort_spec`.
      person: 0 or more; see `drawn_person`. Seen in CT and MRI the same person has the same anatomy.
    """
    body = draw_abdomen_person(person, seed)
    lesions = draw_lesions(body, person, seed, least=1 if spec.planes.modality == "MR" else 0)
    rng = generator_of(seed, person, POPULATION, "scanner", spec.planes.modality)
    sampling = draw_sampling(body, spec.planes.modality, spec.planes.pixels, rng)
    thin = thin_grid(sampling)
    width = float(np.prod(thin.spacing) ** (1 / 3))
    abdomen = build_abdomen(body, lesions, world_points(thin, np.eye(4)), width)
    image = np.rint(acquire_abdomen(abdomen, sampling, spec.planes.modality, rng))
    liver = thick_slices(abdomen.liver, sampling) >= 0.5
    tumour = (thick_slices(abdomen.tumour, sampling) >= 0.5) & liver
    label = liver.astype(np.uint8) + tumour if spec.planes.modality == "CT" else tumour.astype(np.uint8)
    image = np.clip(image, -32768, 32767).astype(np.int16)
    turned, affine = in_file_axes(image, sampling)
    return AbdomenScan(np.ascontiguousarray(turned), np.ascontiguousarray(in_file_axes(label, sampling)[0]), affine)
