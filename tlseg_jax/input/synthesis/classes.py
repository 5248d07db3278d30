"""What the values of a whole-head label map are to an image that is drawn from it: in which order, of which tissue."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence

from tlseg_jax.datasets.label_names import LABEL_NAMES, table_of
from tlseg_jax.datasets.structures import Labels
from tlseg_jax.preprocess.codes import UNMARKED

OUTSIDE = 500
"""FreeSurfer's values above this are parts of the head outside the brain, in the maps that SynthSeg was trained on."""

_ALSO = {136: "Choroid Plexus", 137: "Choroid Plexus", 163: "Choroid Plexus", 164: "Choroid Plexus"}
"""Values that FreeSurfer's own table lacks and those maps have: within the lateral ventricles and their horns."""

_VENTRICLES = ("Lateral Ventricle", "Inf Lat Vent", "3rd Ventricle", "5th Ventricle", "Choroid Plexus")

T1: Mapping[str, tuple[float, float]] = {
    "Cerebral White Matter": (0.98, 0.09),
    "Cerebral Cortex": (0.62, 0.11),
    "Lateral Ventricle": (0.35, 0.10),
    "Inf Lat Vent": (0.45, 0.10),
    "Choroid Plexus": (0.50, 0.10),
    "Cerebellum White Matter": (0.95, 0.08),
    "Cerebellum Cortex": (0.65, 0.10),
    "Cerebellum Exterior": (0.65, 0.10),
    "Thalamus": (0.82, 0.11),
    "Thalamus Proper": (0.82, 0.11),
    "Caudate": (0.70, 0.08),
    "Putamen": (0.80, 0.06),
    "Pallidum": (0.96, 0.04),
    "3rd Ventricle": (0.40, 0.10),
    "4th Ventricle": (0.30, 0.12),
    "Brain Stem": (0.86, 0.10),
    "Hippocampus": (0.65, 0.08),
    "Amygdala": (0.63, 0.06),
    "CSF": (0.30, 0.11),
    "Lesion": (0.75, 0.12),
    "WM Hypointensities": (0.75, 0.12),
    "Accumbens Area": (0.68, 0.06),
    "Basal Forebrain": (0.66, 0.09),
    "Ventral DC": (0.89, 0.12),
    "Vessel": (0.59, 0.08),
    "Optic Chiasm": (0.82, 0.12),
    "Cerebellar Vermal Lobules I-V": (0.67, 0.10),
    "Cerebellar Vermal Lobules VI-VII": (0.67, 0.10),
    "Cerebellar Vermal Lobules VIII-X": (0.67, 0.10),
}
"""Mean and deviation of a T1 scan's grey values in units of white matter's median: the means of 15 OASIS scans of young
adults under their manual labels (MICCAI 2012), rounded; FreeSurfer's CSF lies about the brain, where it was not
measured. What is not named here (parts of the head) has any grey value."""


@dataclasses.dataclass(frozen=True)
class ClassTable:
    """The classes of a data set's label maps, in an order that tells by comparison alone what a voxel is.

    Background first, then tissue, ventricles, the fluid about the brain, and the head outside.

    Attributes:
      values: of the label map, by class.
      ventricles: the first class that is a ventricle.
      fluid: the first class that is fluid about the brain.
      outside: the first class that is outside the brain.
      groups: class -> number of what has one grey value with it: both sides of a structure.
      t1: group -> mean and deviation in a T1 scan (`T1`); (-1, -1) where any is as likely.
      codes: class -> code of the data set's structures (`preprocess.codes`).
    """

    values: tuple[int, ...]
    ventricles: int
    fluid: int
    outside: int
    groups: tuple[int, ...]
    t1: tuple[tuple[float, float], ...]
    codes: tuple[int, ...]


def class_table(values: Collection[int], labels: Labels, t1: Mapping[str, tuple[float, float]] = T1) -> ClassTable:
    """The classes of label maps that hold these values.

    Values of FreeSurfer and Neuromorphometrics are known by name; else each is a tissue of its own.

    Args:
      values: all that the maps of a data set hold; 0 is always one.
      t1: grey values in a T1 scan, by the names of what is known and by the values of the rest.
    """
    table = table_of([v for v in values if v <= OUTSIDE])
    names = {v: _plain(name) for v, name in LABEL_NAMES[table].items()} if table else {}
    if table == "FreeSurfer":
        names |= _ALSO
    if table == "Neuromorphometrics":
        names |= dict.fromkeys(range(100, 208), "Cerebral Cortex")

    def part(value: int) -> int:
        name = names.get(value)
        if value == 0:
            return 0
        if table == "FreeSurfer" and value > OUTSIDE:
            return 4
        return 3 if name == "CSF" else 2 if name in _VENTRICLES else 1

    order = sorted({0, *values}, key=lambda v: (part(v), v))
    parts = [part(v) for v in order]
    shown = [names.get(v, str(v)) for v in order]
    groups = {name: i for i, name in enumerate(dict.fromkeys(shown))}
    ventricles, fluid, outside = (sum(p < first for p in parts) for first in (2, 3, 4))
    return ClassTable(
        tuple(order),
        ventricles,
        fluid,
        outside,
        tuple(groups[name] for name in shown),
        tuple(t1.get(name, (-1.0, -1.0)) for name in groups),
        tuple(_code(v, labels) for v in order),
    )


def _plain(name: str) -> str:
    return name.removeprefix("Left ").removeprefix("Right ")


def _code(value: int, labels: Labels) -> int:
    """The code of a voxel of this value."""
    if value == 0:
        return 0
    if value == labels.unmarked:
        return UNMARKED
    there = [i for i, of in enumerate(labels.values) if value in of or "all" in of]
    if labels.exclusive:
        return there[-1] + 1 if there else 0
    return sum(1 << i for i in there)


def numbered(values: Sequence[int], table: ClassTable) -> list[int]:
    """The class of each value."""
    of = {v: i for i, v in enumerate(table.values)}
    return [of[v] for v in values]
