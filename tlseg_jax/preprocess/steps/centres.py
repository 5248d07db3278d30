"""A whole-head label map to MNI305 by the centres of its structures: there is no image to register."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Integer
from scipy import ndimage

from tlseg_jax.datasets.label_names import PRESETS, table_of
from tlseg_jax.geometry import Affine
from tlseg_jax.preprocess.reading.scan import ExclusionError
from tlseg_jax.preprocess.steps.register import SCALES

CENTRES: Mapping[str, tuple[float, float, float]] = {
    "cerebral_white_matter_left": (-28.7, -17.5, 16.7),
    "cerebral_white_matter_right": (27.7, -18.2, 17.5),
    "cerebral_cortex_left": (-32.2, -18.2, 15.6),
    "cerebral_cortex_right": (31.9, -18.6, 16.3),
    "cerebellum_white_matter_left": (-19.2, -54.8, -37.5),
    "cerebellum_white_matter_right": (19.6, -56.0, -36.9),
    "thalamus_left": (-12.2, -19.7, 5.3),
    "thalamus_right": (10.9, -19.7, 5.8),
    "caudate_left": (-13.3, 8.6, 9.1),
    "caudate_right": (12.8, 8.6, 9.9),
    "putamen_left": (-25.3, 0.7, -0.7),
    "putamen_right": (25.0, 0.0, -0.3),
    "pallidum_left": (-19.7, -4.4, -2.9),
    "pallidum_right": (19.4, -5.1, -2.1),
    "hippocampus_left": (-25.3, -22.9, -15.0),
    "hippocampus_right": (25.6, -23.7, -14.3),
    "amygdala_left": (-21.7, -5.8, -21.5),
    "amygdala_right": (21.7, -6.6, -21.1),
    "accumbens_area_left": (-9.4, 11.2, -8.6),
    "accumbens_area_right": (8.8, 11.1, -8.0),
    "ventral_dc_left": (-9.7, -17.3, -12.2),
    "ventral_dc_right": (9.5, -18.0, -11.9),
    "3rd_ventricle": (-0.1, -10.1, -5.5),
    "4th_ventricle": (0.2, -46.1, -34.5),
    "brain_stem": (0.5, -31.9, -33.8),
}
"""Structure -> its centre of mass in MNI305 mm: means over the 15 OASIS scans of young adults with manual labels
(MICCAI 2012), registered by `steps.register`; between persons a centre varies by about 1 mm (deviation). Lateral
ventricles are left out: theirs vary most, with age. The cortex is all of its parcels."""

FEWEST = 12
"""Structures without which an affine, of twelve numbers, would fit whatever there is."""

LEAST_VOXELS = 30
"""Of a structure, for its centre to count."""

MOST_MM = 8.0
"""Root mean square distance, after the affine, above which it is no head in its right orientation. The 20 maps that
SynthSeg was trained on have 1.3 to 3.6 mm."""


def register_map(
    values: Integer[np.ndarray, "x y z"], affine: Affine, name: str = "The label map"
) -> tuple[Affine, dict[str, float]]:
    """The affine that brings the centres of a map's structures nearest to `CENTRES`, by least squares.

    Args:
      values: FreeSurfer's or Neuromorphometrics'.
      affine: (4, 4) voxel -> world RAS mm.

    Returns:
      (4, 4) MNI305 mm -> world RAS mm; how many structures were found, and their root mean square distance in mm.

    Raises:
      ExclusionError: too few of the structures are there, or they do not lie as in a head.
    """
    there = np.unique(values)
    table = table_of([int(v) for v in there if v < 100])
    found = {}
    boxes = ndimage.find_objects(values) if table else []
    for structure in CENTRES if table else ():
        there_too = [(v, box) for v in _values(table, structure) if v <= len(boxes) and (box := boxes[v - 1])]
        at = [np.argwhere(values[box] == v) + [s.start for s in box] for v, box in there_too]
        if sum(map(len, at)) >= LEAST_VOXELS:
            found[structure] = affine[:3] @ [*np.concatenate(at).mean(0), 1.0]
    if len(found) < FEWEST:
        raise ExclusionError(
            f"{name} could not be placed in MNI305: only {len(found)} of {len(CENTRES)} structures were found by the "
            f"values of FreeSurfer or Neuromorphometrics, and {FEWEST} are needed; give a map of the whole brain, or "
            "place it yourself and use `registration=skip`."
        )
    here = np.array([[*CENTRES[s], 1.0] for s in found])
    world = np.array(list(found.values()))
    solved, *_ = np.linalg.lstsq(here, world, rcond=None)
    scales = np.linalg.svd(solved[:3], compute_uv=False)
    rms = float(np.sqrt(((here @ solved - world) ** 2).sum(1).mean()))
    inside_out = np.linalg.det(solved[:3]) <= 0
    if rms > MOST_MM or inside_out or not (SCALES[0] <= scales.min() and scales.max() <= SCALES[1]):
        why = "left and right are exchanged" if inside_out else f"its structures lie {rms:.1f} mm off those of a head"
        raise ExclusionError(
            f"{name} could not be placed in MNI305: {why}; check its values and the orientation in its header, or "
            "place it yourself and use `registration=skip`."
        )
    mni_to_world = np.eye(4)
    mni_to_world[:3] = solved.T
    return mni_to_world, {"structures": len(found), "rms_mm": round(rms, 2)}


def _values(table: str, structure: str) -> tuple[int, ...]:
    """The values of a structure; Neuromorphometrics' cortex is many, odd on the left and even on the right."""
    name, _, side = structure.rpartition("_")
    if table == "Neuromorphometrics" and name == "cerebral_cortex":
        return tuple(range(101 if side == "left" else 100, 208, 2))
    return PRESETS[table.lower()].get(structure, ())
