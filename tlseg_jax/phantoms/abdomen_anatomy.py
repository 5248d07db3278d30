"""A person's abdomen as layers of tissue with partial volume, on a grid of points in mm.

Layers are listed from the outside in; each covers those before it, so that a boundary voxel mixes the two
sides as it does in a scan. Lesions come last, and lie within the liver.
"""

import dataclasses

import numpy as np

from tlseg_jax.phantoms import abdomen_organs as organs
from tlseg_jax.phantoms.abdomen_person import AbdomenPerson, body_points
from tlseg_jax.phantoms.abdomen_signal import Organ
from tlseg_jax.phantoms.abdomen_trunk import paint_trunk
from tlseg_jax.phantoms.abdomen_tumours import Lesion
from tlseg_jax.phantoms.phantom_shapes import Canvas, Floats, Layer, Region, Tube, cover, ellipsoid, tube, union

FAR = 12.0
"""Signed distances are capped here, in mm."""

CAPSULE_MM = 1.0
"""A tumour ends this far beneath the liver's surface."""


@dataclasses.dataclass(frozen=True, eq=False)
class PaintedLesion:
    """A lesion's share of each voxel in its box: all of it, what lies within its rim, and its mottle (sd 1)."""

    lesion: Lesion
    where: Region
    share: Floats
    core: Floats
    mottle: Floats


@dataclasses.dataclass(frozen=True, eq=False)
class Abdomen:
    """An abdomen on a grid.

    Attributes:
      layers: from the outside in.
      liver: (x, y, z) the liver's share of each voxel, its vessels and tumours included.
      tumour: (x, y, z) the tumours' share of each voxel.
    """

    layers: tuple[Layer, ...]
    lesions: tuple[PaintedLesion, ...]
    liver: Floats
    tumour: Floats


def build_abdomen(person: AbdomenPerson, lesions: tuple[Lesion, ...], world: Floats, width: float) -> Abdomen:
    """One person's abdomen at given points.

    Args:
      world: (3, x, y, z) float32, mm, the origin in the middle of the body.
      width: side of a voxel in mm, for partial volume.
    """
    canvas = Canvas(body_points(person, world), width / float(np.mean(person.size)))
    inner = organs.cavity(canvas.points)
    paint_trunk(person, canvas, inner)
    _paint_bowel(person, canvas, inner)
    _paint_upper_organs(person, canvas)
    _paint_great_vessels(person, canvas)
    where = canvas.box(organs.LIVER_BOX)
    surface = organs.liver(person, canvas.at(where))
    canvas.paint(Organ.LIVER, surface, where)
    gallbladder = canvas.box(((10, 90), (-10, 90), (-90, 0)))
    canvas.paint(Organ.MUSCLE, organs.gallbladder(person, canvas.at(gallbladder)), gallbladder)
    canvas.paint(Organ.BILE, organs.gallbladder(person, canvas.at(gallbladder)) + 2, gallbladder)
    for name, tissue in (("hepatic", Organ.HEPATIC_VEIN), ("portal", Organ.PORTAL_VEIN)):
        for vessel in organs.liver_vessels(person)[name]:
            _paint_tube(canvas, tissue, vessel)
    liver = _placed(cover(surface, canvas.width), where, canvas)
    tumour = np.zeros_like(liver)
    painted = tuple(_paint_lesion(person, canvas, lesion) for lesion in lesions)
    for one in painted:
        if one.lesion.kind != "cyst":
            np.maximum(tumour[one.where], one.share, out=tumour[one.where])
    return Abdomen(tuple(canvas.layers), painted, liver, tumour)


def _paint_lesion(person: AbdomenPerson, canvas: Canvas, lesion: Lesion) -> PaintedLesion:
    (x, y, z), r = lesion.centre, lesion.reach
    where = canvas.box(((x - r, x + r), (y - r, y + r), (z - r, z + r)))
    p = canvas.at(where)
    shape = np.maximum(lesion.distance(p), organs.liver(person, p) + np.float32(CAPSULE_MM))
    return PaintedLesion(
        lesion,
        where,
        cover(shape, canvas.width),
        cover(shape + np.float32(lesion.rim_mm), canvas.width),
        person.mottle.at(p),
    )


def _paint_bowel(person: AbdomenPerson, canvas: Canvas, inner: Floats) -> None:
    where = canvas.box(((-150, 150), (-60, 120), (-400, 40)))
    p = canvas.at(where)
    x, y, z = p
    room = np.maximum(np.maximum(inner[where] + 7, -24 - y), (z - 12 + np.float32(0.35) * (x + 40)) * np.float32(0.9))
    field, gas = person.bowel.at(p), person.gas.at(p)
    loops = np.maximum((np.float32(-0.15) - field) * 9, room)  # the field's slope is about 1/9 a mm
    canvas.paint(Organ.BOWEL, loops, where)
    canvas.paint(Organ.FLUID, np.maximum(loops + 3.5, -6 * gas), where)
    canvas.paint(Organ.GAS, np.maximum(loops + 3.5, (np.float32(0.9) - gas) * 12), where)
    wave = 5 * np.sin(z / 14)
    c = person.shift["colon"]
    for side, top in ((1.0, -55.0), (-1.0, -10.0)):
        colon = ellipsoid(p, (side * (100 + c[0]), -4 + c[1], 0.0), (21.0, 21.0, 2000.0)) + np.float32(0.3) * wave
        colon = np.maximum(np.maximum(colon, z - np.float32(top)), inner[where] + 5)
        _paint_gut(canvas, colon, y - np.float32(c[1]) + wave, where)
    across = tube(
        [
            (104.0, 20.0 + c[1], -62.0, 17.0),
            (50.0, 66.0, -82.0 + c[2], 17.0),
            (-30.0, 70.0, -84.0 - c[2], 16.0),
            (-90.0, 40.0 + c[0], -40.0, 17.0),
            (-112.0, 0.0, -8.0, 18.0),
        ]
    )
    distance, _ = across.distance(p, 30.0)
    _paint_gut(canvas, np.maximum(distance + np.float32(0.3) * wave, inner[where] + 4), y - 52 + wave, where)


def _paint_gut(canvas: Canvas, shape: Floats, height: Floats, where: Region) -> None:
    """A stretch of gut: its wall, what it holds, and gas above (`height` mm, the person lies on the back)."""
    canvas.paint(Organ.BOWEL, shape, where)
    canvas.paint(Organ.FLUID, shape + 3, where)
    canvas.paint(Organ.GAS, np.maximum(shape + 3, -height), where)


def _paint_upper_organs(person: AbdomenPerson, canvas: Canvas) -> None:
    where = canvas.box(((-130, 30), (-90, 110), (-80, 100)))
    p = canvas.at(where)
    stomach = organs.stomach(person, p)
    canvas.paint(Organ.STOMACH, stomach, where)
    canvas.paint(Organ.FLUID, stomach + 4, where)
    level = np.float32(36 + 2.5 * person.shift["stomach"][1]) - p[1]
    canvas.paint(Organ.GAS, np.maximum(stomach + 4, level), where)
    where = canvas.box(((-150, -20), (-100, 60), (-60, 100)))
    p = canvas.at(where)
    spleen = organs.spleen(person, p)
    canvas.paint(Organ.SPLEEN, spleen, where)
    canvas.paint(Organ.SPLEEN_DARK, np.maximum(spleen + 1, np.float32(4.0) * (0.2 - person.mottle.at(p))), where)
    s = person.shift["pancreas"]
    _paint_tube(
        canvas,
        Organ.PANCREAS,
        tube(
            [
                (34.0 + s[0], 10.0, -44.0, 13.0),
                (14.0, 14.0 + s[1], -22.0, 10.0),
                (-26.0, 6.0, -8.0 + s[2], 9.0),
                (-68.0, -22.0, 8.0, 7.0),
            ]
        ),
    )
    for side in (1, -1):
        where = canvas.box(((side * 64 - 50, side * 64 + 50), (-100, 10), (-150, 30)))
        p = canvas.at(where)
        kidney = organs.kidney(person, p, side)
        # The renal pelvis opens to the middle: fat, and the vein's blood.
        drop = -62.0 if side > 0 else -48.0
        sinus = ellipsoid(p, (side * 43.0, -38.0, drop), (16.0, 10.0, 20.0))
        canvas.paint(Organ.CORTEX, kidney, where)
        pyramids = np.sin(np.arctan2(p[2] - drop, side * p[0] - 50) * 5 + p[1] / 9)
        canvas.paint(Organ.MEDULLA, np.maximum(kidney + 7, np.float32(3.0) * (-0.35 - pyramids)), where)
        canvas.paint(Organ.FAT, np.maximum(sinus, kidney), where)


def _paint_great_vessels(person: AbdomenPerson, canvas: Canvas) -> None:
    where = canvas.box(((-90, 90), (-75, 10), (-1000, 1000)))
    p = canvas.at(where)
    canvas.paint(Organ.AORTA, organs.aorta(person, p), where)
    canvas.paint(Organ.CAVA, organs.cava(person, p), where)
    renal = canvas.box(((-60, 60), (-70, -10), (-75, -35)))
    q = canvas.at(renal)
    branch = np.maximum(np.hypot(q[1] + 32 + 0.1 * np.abs(q[0]), q[2] + 52) - 3.2, np.abs(q[0]) - 46)
    canvas.paint(Organ.AORTA, union(branch, organs.aorta(person, q), 2.0), renal)


def _paint_tube(canvas: Canvas, tissue: Organ, vessel: Tube) -> None:
    low, high = vessel.curve.min(0) - 16, vessel.curve.max(0) + 16
    where = canvas.box(((low[0], high[0]), (low[1], high[1]), (low[2], high[2])))
    canvas.paint(tissue, vessel.distance(canvas.at(where), FAR)[0], where)


def _placed(part: Floats, where: Region, canvas: Canvas) -> Floats:
    full = np.zeros(canvas.points.shape[1:], np.float32)
    full[where] = part
    return full
