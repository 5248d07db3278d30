"""Persons of a factor data set (`datasets.factors`) drawn from label maps of real heads, one a map.

The map gives the anatomy, and the data set's levels say what disease, pose, scanner, skull strip and rater make of it.
Each of these has random numbers of its own, by (seed, person), so that changing one leaves the others' contribution as
it was.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Integer, Key
from numpy.typing import NDArray
from scipy import ndimage

from tlseg_jax.datasets.factors import Levels, parse_name
from tlseg_jax.datasets.lookup import get_spec
from tlseg_jax.datasets.spec import DatasetSpec, Shape3, Spacing3
from tlseg_jax.datasets.structures import ALL, Labels, LabelValues
from tlseg_jax.geometry import Grid
from tlseg_jax.input.synthesis import atrophy, deformation, scanner
from tlseg_jax.input.synthesis.classes import OUTSIDE, T1, ClassTable, class_table, numbered
from tlseg_jax.input.synthesis.draw import averaged
from tlseg_jax.input.synthesis.ranges import Ranges, grey_values
from tlseg_jax.phantoms.cohort import DrawnScan, Persons
from tlseg_jax.phantoms.phantom_labels import draw_label
from tlseg_jax.phantoms.phantom_scanner import HEAD_CENTRE, draw_turn, world_points
from tlseg_jax.phantoms.phantom_shapes import generator_of
from tlseg_jax.preprocess.layouts.maps import find_maps
from tlseg_jax.preprocess.map_pipeline import finer, map_factor, values_held
from tlseg_jax.preprocess.reading.read import read_scan
from tlseg_jax.preprocess.reading.scan import ExclusionError, Scan, ScanFiles
from tlseg_jax.preprocess.steps.centres import register_map
from tlseg_jax.preprocess.steps.resample import to_grid
from tlseg_jax.preprocess.steps.template import mni305_grid, native_grid
from tlseg_jax.preprocess.store.provenance import checksums_of
from tlseg_jax.runtime.errors import InputError

VERSION = 1
"""Raised whenever the same parameters would draw other voxels."""

CAUDATE: LabelValues = (11, 50)
VENTRICLE: LabelValues = (4, 43, 136, 163)
"""FreeSurfer's values; the lateral ventricles with their choroid plexus."""

VOXELS_A_SIDE = 4
"""Voxels of the map to one of the grid, a side, at most: up to 4 mm they are of about 1 mm, as a blur of some mm finds
what a disease moves."""

WHITE = 1000
"""Grey value of about white matter in the files."""

HEAD: Mapping[str, tuple[float, float]] = {
    "507": (0.75, 0.15),
    "509": (0.55, 0.12),
    "511": (0.55, 0.10),
    "512": (0.85, 0.06),
    "514": (0.40, 0.10),
    "515": (0.15, 0.05),
    "516": (0.50, 0.12),
}
"""As `T1`, of parts of the head by their values in SynthSeg's maps: fat and muscle, nose, skin, spinal cord, veins,
skull and marrow. Not measured: by where they lie, with the phantoms' signals."""

_ANY = Ranges(t1_share=1.0, jitter=0.25, gamma=0.05, air=0.0, thick_share=1.0, thick_axis=0)

SCANNERS: Mapping[str, Ranges] = {
    "trial": dataclasses.replace(
        _ANY, contrast=(0.85, 1.0), bias=(0.1, 0.3), blur_mm=(0.28, 0.83), thick_mm=(1.2, 2.6), noise=(0.1, 0.18)
    ),
    "registry": dataclasses.replace(
        _ANY,
        contrast=(0.95, 1.25),
        jitter=0.45,
        bias=(0.15, 0.45),
        gamma=0.15,
        blur_mm=(0.28, 1.02),
        thick_mm=(1.6, 3.6),
        thick_axis=2,
        noise=(0.12, 0.23),
    ),
    "survey": dataclasses.replace(
        _ANY, contrast=(0.95, 1.05), bias=(0.08, 0.22), blur_mm=(0.28, 0.74), thick_mm=(1.2, 2.2), noise=(0.1, 0.16)
    ),
}
"""A multi-centre trial, a large registry of mixed scanners and one site's survey, after the phantoms' protocols
(`phantom_scanner.PROTOCOLS`)."""

DISEASES: Mapping[str, tuple[float, float, float]] = {
    "healthy": (0.0, 0.0, 0.0),
    "HD": (2.0, -4.5, 0.25),
    "AD": (5.0, 0.0, 0.9),
}
"""At the greatest severity: mm by which the ventricles' walls and the caudates' go outwards, and the share of the
brain's surface that becomes fluid (`atrophy.SULCI`)."""

NOTE = """Images drawn by a program (tlseg_jax.input.synthesis.persons) from label maps of real heads.

Their anatomy is that of the maps, changed as the data set's levels say, and their grey values are drawn. No such scan
was ever made: a score reached on them says nothing about how a method performs on patients.

Data set: {name}. The label marks: {structure}.
subjects.csv lists the files; cohort.json has the parameters that draw the same files from the same maps again.
"""


def map_persons(label_maps: Path, spec: DatasetSpec, seed: int, count: int) -> Persons:
    """The persons of a factor data set, each of a label map of its own.

    Args:
      label_maps: folder, or list, of whole-head label maps with FreeSurfer's values.
      spec: of a factor data set, with a spacing.
      count: how many persons; they are the first of the maps, by name, whatever the data set.

    Raises:
      InputError: there are fewer maps, or one that cannot be used.
    """
    found = find_maps(label_maps)
    if found.exclusions:
        raise InputError(f"{found.exclusions[0].reason} Take it out of {label_maps}: each map is a person.")
    maps = [f for f in found.scans if f.split != "test"]
    if count > len(maps):
        raise InputError(
            f"{count} persons are asked for, to train (`cohort_train`) and to test, and {label_maps} holds {len(maps)} "
            "label maps, one a person: ask for as many at most."
        )
    levels = parse_name(spec.name)

    def draw(person: int) -> DrawnScan:
        try:
            return draw_from_map(maps[person], levels, spec, seed, person)
        except ExclusionError as e:
            raise InputError(f"{e} Every factor data set shows every person: else take it out.") from None

    parameters = {
        "cohort": f"maps {VERSION}",
        "levels": levels.to_dict(),
        "maps": {f.subject: checksums_of(f)["image"] for f in maps[:count]},
        "shape": list(spec.volumes.dimensions),
        "spacing": list(spec.volumes.spacing or ()),
        "seed": seed,
    }
    return Persons(parameters, NOTE.format(name=spec.name, structure=spec.shown), draw)


def draw_from_map(files: ScanFiles, levels: Levels, spec: DatasetSpec, seed: int, person: int) -> DrawnScan:
    """One person's scan and label on the data set's grid; in native space turned, and about the brain's middle.

    Raises:
      ExclusionError: the map cannot be read or registered, or shows nothing of the structure.
    """

    def numbers(*purpose: str) -> np.random.Generator:
        return generator_of(seed, person, "maps", *purpose)

    def key(*purpose: str) -> Key[Array, ""]:
        return jax.random.key(int(numbers(*purpose).integers(2**31)))

    scan = read_scan(files, Labels(values=(ALL,)))
    factor = map_factor(spec, VOXELS_A_SIDE)
    table, classes, grid = _placed(scan, spec, factor, str(files.image), numbers("pose"))
    fine = finer(grid, factor).spacing
    severity = numbers("severity").uniform(0.4, 1.0)
    moved = _diseased(classes, table, fine, factor, severity * np.array(DISEASES[levels.disease]))
    look, values = jax.random.split(key("scanner", levels.scanner))
    ranges = SCANNERS[levels.scanner]
    image = _painted(look, moved, grey_values(values, table, ranges), grid.spacing, factor, ranges)
    brain = averaged(jnp.asarray((moved >= 1) & (moved < table.fluid)), factor)
    kept = np.asarray(scanner.kept(key("skull"), brain, grid.spacing, True)) >= 0.5
    structure = _structure(levels.structure)
    inside = np.isin(moved, [i for i, v in enumerate(table.values) if v in structure])
    if not inside.any():
        raise ExclusionError(f"{files.image} shows no {levels.structure} by FreeSurfer's values {structure}.")
    to_centre = np.eye(4)
    if spec.volumes.space == "native":
        to_centre[:3, 3] = HEAD_CENTRE - grid.affine[:3] @ [*((np.array(grid.shape) - 1) / 2), 1.0]
    points = world_points(grid, to_centre)
    distance = np.asarray(averaged(jnp.asarray(_signed_distance(inside, fine)), factor))
    along = None if levels.structure == "whole brain" else _along(points[1], distance)
    rater = numbers("label", levels.structure)
    label = draw_label(distance, along, points, grid.spacing, levels.labels, rater)  # type: ignore[arg-type]
    image = WHITE * np.asarray(image) * (kept if levels.skull == "stripped" else 1)
    return DrawnScan(files.subject, image, label, kept, grid.affine)


def _structure(name: str) -> LabelValues:
    if name == "whole brain":
        return get_spec("whole_brain_maps").label_values[0]
    return CAUDATE if name == "caudate" else VENTRICLE


def _placed(
    scan: Scan, spec: DatasetSpec, factor: Shape3, name: str, pose: np.random.Generator
) -> tuple[ClassTable, NDArray[np.uint8], Grid]:
    """A map's classes, in the finer voxels of the data set's grid."""
    values, affine, to_world = scan.image.astype(np.int32), scan.affine, np.eye(4)
    held = values_held(values, name)
    table = class_table(held, Labels((), ()), {**T1, **HEAD})
    if spec.volumes.space == "MNI305":
        to_world, _ = register_map(values, affine, name)
        grid = mni305_grid(spec)
    else:
        turn = np.eye(4)
        turn[:3, :3] = draw_turn("native", pose)
        affine = turn @ affine
        grid = native_grid(spec, values.shape, affine, (values > 0) & (values < OUTSIDE))
    class_of = np.zeros(held[-1] + 1, np.uint8)
    class_of[list(held)] = numbered(held, table)
    return table, class_of[to_grid(values, affine, finer(grid, factor), to_world, 0, False, 0.0).astype(np.int32)], grid


def _diseased(
    classes: NDArray[np.uint8], table: ClassTable, fine: Spacing3, factor: Shape3, change: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """The classes after a disease, by its numbers in `DISEASES`."""
    whole = np.pad(classes, [(0, -n % atrophy.POOL) for n in classes.shape])
    moved = np.asarray(_moved(whole, table, fine, factor, change.astype(np.float32)))
    return moved[tuple(slice(n) for n in classes.shape)]


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _moved(
    classes: Integer[Array, "a b c"], table: ClassTable, fine: Spacing3, factor: Shape3, change: Float[Array, "3"]
) -> Integer[Array, "a b c"]:
    hollow = (classes >= table.ventricles) & (classes < table.fluid)
    caudate = jnp.isin(classes, jnp.asarray([i for i, v in enumerate(table.values) if v in CAUDATE]))
    field = atrophy.displacement(hollow, fine, change[0]) + atrophy.displacement(caudate, fine, change[1])
    sides = (classes.shape[0], classes.shape[1], classes.shape[2])
    at = deformation.places(jax.random.key(0), sides, fine, wide=0.0)
    moved = deformation.nearest(classes, at + atrophy.looked_up(field, at), sides)
    return atrophy.sulci(jax.lax.optimization_barrier(moved), table, factor, change[2])


@functools.partial(jax.jit, static_argnums=(3, 4, 5))
def _painted(
    key: Key[Array, ""],
    moved: Integer[Array, "a b c"],
    grey: tuple[Float[Array, " classes"], Float[Array, " classes"]],
    spacing: Spacing3,
    factor: Shape3,
    ranges: Ranges,
) -> Float[Array, "x y z"]:
    """What a scanner shows of classes with these means and deviations: as `draw.painted`, with a magnitude's noise."""
    scan, level, normal = jax.random.split(key, 3)
    mean, deviation = (averaged(jnp.take(of, moved, mode="clip"), factor) for of in grey)
    texture, *noise = jax.random.normal(normal, (3, *mean.shape))
    clean = jnp.maximum(mean + deviation / math.sqrt(math.prod(factor)) * texture, 0)
    image, _ = scanner.acquired(scan, clean, spacing, ranges)
    real, imaginary = (scanner.within(ranges.noise, jax.random.uniform(level)) * image.std() * n for n in noise)
    return jnp.hypot(image + real, imaginary)


def _signed_distance(inside: Bool[np.ndarray, "a b c"], spacing: Spacing3) -> Float32[np.ndarray, "a b c"]:
    """mm to the boundary, negative inside; beyond 20 mm of the structure's box 20."""
    around = [math.ceil(20 / s) for s in spacing]
    (found,) = ndimage.find_objects(inside.astype(np.uint8))
    box = tuple(slice(max(s.start - m, 0), s.stop + m) for s, m in zip(found, around, strict=True))
    out = np.full(inside.shape, 20.0, np.float32)
    away, within = (ndimage.distance_transform_edt(m, spacing) for m in (~inside[box], inside[box]))
    # Between the middles of two voxels that differ: half a voxel from either.
    out[box] = np.where(inside[box], min(spacing) / 2 - within, away - min(spacing) / 2)
    return out


def _along(
    forward: Float32[np.ndarray, "x y z"], distance: Float32[np.ndarray, "x y z"]
) -> Float32[np.ndarray, "x y z"]:
    """Position from a structure's front, 0, to its back, 1."""
    there = forward[distance < 0]
    low, high = (float(there.min()), float(there.max())) if there.size else (0.0, 1.0)
    return np.clip((high - forward) / max(high - low, 1.0), 0, 1).astype(np.float32)
