"""A person's head as layers of tissue with partial volume, evaluated at any points in MNI305 mm.

The positions and sizes are round numbers for a schematic head in the MNI305 frame (RAS mm, origin
near the anterior commissure): the relations matter, not the last millimetre. Layers are listed from
the outside in; each covers those before it, so a boundary voxel mixes the two sides as it does in a
scan.
"""

import dataclasses
import enum

import numpy as np
from numpy.typing import NDArray

from tlseg_jax.phantoms.phantom_deep import DEEP_BOX, deep_shapes
from tlseg_jax.phantoms.phantom_person import Person
from tlseg_jax.phantoms.phantom_shapes import Canvas, Floats, Layer, Region, box_of, ellipsoid, union

FAR = 12.0
"""Signed distances of a structure are capped here, in mm."""


HEAD_BOX = ((-96.0, 96.0), (-136.0, 112.0), (-125.0, 104.0))
"""The head and the upper neck lie inside, whatever the person; beyond is air."""


class Tissue(enum.IntEnum):
    """What a voxel is mostly made of."""

    AIR = 0
    SKIN = 1
    FAT = 2
    MUSCLE = 3
    BONE = 4
    MARROW = 5
    CSF = 6
    GREY = 7
    WHITE = 8
    CEREBELLUM = 9
    BRAINSTEM = 10
    THALAMUS = 11
    PUTAMEN = 12
    PALLIDUM = 13
    HIPPOCAMPUS = 14
    VENTRICLE = 15
    CAUDATE = 16


@dataclasses.dataclass(frozen=True, eq=False)
class Anatomy:
    """A head on a grid.

    Attributes:
      layers: from the outside in.
      brain: (x, y, z) bool, everything within the cortical surface, sulci included.
      parenchyma: (x, y, z) mm, signed distance to brain tissue and ventricles, sulci left out.
      caudate: (x, y, z) mm, signed distance.
      ventricle: (x, y, z) mm, signed distance to the lateral ventricles.
      along: (x, y, z), the nearest caudate's or ventricle's position along its curve, 0 to 1.
      texture: (x, y, z) relative slow variation of the signal, standard deviation 1.
    """

    layers: tuple[Layer, ...]
    brain: NDArray[np.bool_]
    parenchyma: Floats
    caudate: Floats
    ventricle: Floats
    along: dict[str, Floats]
    texture: Floats


def build_anatomy(person: Person, points: Floats, width: float) -> Anatomy:
    """One person's head at given points.

    Args:
      points: (3, x, y, z) float32, MNI305 mm, the pose already undone.
      width: voxel size in mm, for partial volume.
    """
    head = box_of(points, HEAD_BOX)
    p = points[(slice(None), *head)]
    p = p + np.stack([field.at(p) for field in person.warp])
    canvas = Canvas(p, width)
    paint = canvas.paint
    half = np.concatenate([np.abs(p[:1]), p[1:]])  # left and right in one
    cerebrum, cerebellum, stem = _brain_envelopes(half)
    hull = union(union(cerebrum, cerebellum, 8.0), stem, 6.0)
    texture = person.texture.at(p)

    inner = hull - np.float32(person.subarachnoid)
    outer = inner - np.float32(person.skull) * (1 + np.float32(0.12) * texture)
    _paint_head(canvas, person, half, outer, inner, texture)
    paint(Tissue.CSF, inner)

    pial = _pial_surface(person, p, half, cerebrum)
    paint(Tissue.GREY, pial)
    paint(Tissue.WHITE, pial + np.float32(person.cortex))
    stripes = np.sin(np.float32(0.95) * (half[2] + np.float32(0.35) * half[1]) + np.float32(1.5) * texture)
    folia = cerebellum + np.float32(1.2) * np.maximum(-stripes, 0)
    paint(Tissue.CEREBELLUM, folia)
    core = ellipsoid(half, (15.0, -58.0, -33.0), (15.0, 11.0, 7.0))
    branches = np.maximum(cerebellum + 5, np.float32(1.3) - 2 * stripes)
    paint(Tissue.WHITE, union(core, branches, 3.0))
    paint(Tissue.BRAINSTEM, stem)

    where = canvas.box(DEEP_BOX)
    deep, along_deep = deep_shapes(person, canvas.at(where))
    for name in ("thalamus", "pallidum", "putamen", "hippocampus"):
        paint(Tissue[name.upper()], deep[name], where)
    paint(Tissue.CSF, deep["cistern"], where)
    paint(Tissue.VENTRICLE, deep["ventricle"], where)
    paint(Tissue.CAUDATE, deep["caudate"], where)
    where = _inside(head, where)

    def placed(part: Floats, at: Region, outside: float) -> Floats:
        full = np.full(points.shape[1:], outside, np.float32)
        full[at] = np.minimum(part, FAR)
        return full

    return Anatomy(
        layers=tuple(dataclasses.replace(one, where=_inside(head, one.where)) for one in canvas.layers),
        brain=placed(hull, head, FAR) < 0,
        parenchyma=placed(np.minimum(np.minimum(pial, folia), stem), head, FAR),
        caudate=placed(deep["caudate"], where, FAR),
        ventricle=placed(deep["ventricle"], where, FAR),
        along={k: placed(v, where, 0.0) for k, v in along_deep.items()},
        texture=placed(texture, head, 0.0),
    )


def _brain_envelopes(half: Floats) -> tuple[Floats, Floats, Floats]:
    """Smooth hulls of cerebrum, cerebellum and brainstem; `half` has |x| in place of x."""
    top = ellipsoid(half, (0.0, -16.0, 12.0), (68.0, 87.0, 67.0))
    base = np.float32(-20) - half[2] - np.float32(0.12) * (half[1] + 16)
    # Cut off below, with a rounded edge.
    hemisphere = -union(-top, -base, 14.0)
    temporal = ellipsoid(half, (42.0, -14.0, -18.0), (24.0, 44.0, 25.0))
    cerebrum = union(hemisphere, temporal, 8.0)
    cerebellum = ellipsoid(half, (19.0, -64.0, -35.0), (31.0, 29.0, 23.0))
    cerebrum = np.maximum(cerebrum, np.float32(1.2) - cerebellum)  # the tentorium
    stem = union(
        ellipsoid(half, (0.0, -27.0, -27.0), (14.0, 12.0, 20.0)),
        ellipsoid(half, (0.0, -40.0, -62.0), (8.0, 8.0, 34.0)),
        8.0,
    )
    return cerebrum, cerebellum, stem


def _pial_surface(person: Person, p: Floats, half: Floats, cerebrum: Floats) -> Floats:
    """The folded surface of the cortex: the hull less sulci, interhemispheric and Sylvian fissure."""
    x, y, z = half
    # Sulci run perpendicular to the surface: radial distance counts for little in the fold field.
    middle = np.array([0.0, -16.0, 5.0], np.float32).reshape(3, 1, 1, 1)
    from_middle = p - middle
    radius = np.sqrt((from_middle * from_middle).sum(0))
    stretch = (np.maximum(radius, 10) / 68) ** np.float32(-0.7)
    to_fold = np.abs(person.folds.at(middle + from_middle * stretch))
    to_fold += np.float32(0.4) * np.maximum(42 - radius, 0)  # none at the base, near the middle
    depth = -cerebrum
    widening = np.float32(person.sulcus) + np.float32(0.9) * np.exp(np.minimum(-depth, 0) / 5)
    reach = np.float32(person.sulcus_depth) + np.float32(3.0) * person.fold_depth.at(p)
    sulcus = np.maximum(to_fold - widening, depth - reach)
    # The fissure between the hemispheres ends on the corpus callosum.
    arch = np.hypot((y + 6) / 42, (z - 3) / 29)
    fissure = np.maximum(x - np.float32(0.5 + person.sulcus), (1 - arch) * 30)
    rise = z + 4 + np.float32(0.3) * (y - 10)
    lateral = np.maximum(np.abs(rise) - 1.2, np.maximum(38 - x, np.abs(y + 8) - 32))
    bowl = np.abs(x - 38 + np.float32(0.1) * np.abs(y)) - 0.9
    insula = np.maximum(bowl, np.maximum(np.abs(rise - 3) - 11, np.abs(y - 2) - 20))
    gaps = np.minimum(np.minimum(sulcus, fissure), np.minimum(lateral, insula))
    return np.maximum(cerebrum, -gaps)


def _paint_head(canvas: Canvas, person: Person, half: Floats, outer: Floats, inner: Floats, texture: Floats) -> None:
    """Everything outside the dura: scalp, face, neck, eyes, airways and skull."""
    paint = canvas.paint
    face = ellipsoid(half, (0.0, 34.0, -48.0), (60.0, 56.0, 58.0))
    neck = ellipsoid(half, (0.0, -35.0, -120.0), (58.0, 62.0, 75.0))
    soft = union(union(outer - np.float32(person.scalp), face, 25.0), neck, 25.0)
    paint(Tissue.SKIN, soft)
    paint(Tissue.FAT, soft + 1.5)
    paint(Tissue.MUSCLE, soft + np.float32(person.scalp) + np.float32(0.8) * texture)
    paint(Tissue.FAT, ellipsoid(half, (30.0, 50.0, -30.0), (17.0, 28.0, 17.0)))
    paint(Tissue.BONE, outer)
    diploe = np.maximum(outer + np.float32(0.36 * person.skull), np.float32(0.3 * person.skull) - inner)
    paint(Tissue.MARROW, diploe)
    nose = ellipsoid(half, (0.0, 62.0, -50.0), (13.0, 27.0, 20.0))
    paint(Tissue.AIR, np.maximum(nose, 2 - half[0] + 1.5 * texture))
    paint(Tissue.AIR, ellipsoid(half, (0.0, 5.0, -75.0), (12.0, 10.0, 30.0)))
    paint(Tissue.CSF, ellipsoid(half, (32.0, 62.0, -30.0), (12.0, 12.0, 12.0)))


def _inside(outer: Region, inner: Region) -> Region:
    """The region `inner`, given relative to the start of `outer`, in the voxels that `outer` counts."""
    a, b, c = (slice(o.start + i.start, o.start + i.stop) for o, i in zip(outer, inner, strict=True))
    return (a, b, c)
