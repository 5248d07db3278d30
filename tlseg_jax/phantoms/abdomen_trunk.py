"""The trunk around the organs: skin, fat, muscle, ribs, spine, pelvis, lungs and heart."""

import numpy as np

from tlseg_jax.phantoms import abdomen_organs as organs
from tlseg_jax.phantoms.abdomen_organs import LONG
from tlseg_jax.phantoms.abdomen_person import AbdomenPerson
from tlseg_jax.phantoms.abdomen_signal import Organ
from tlseg_jax.phantoms.phantom_shapes import Canvas, Floats, ellipsoid, union

VERTEBRA_MM = 34.0
"""Height of a vertebra and its disc."""

RIB_MM = 27.0
"""From one rib to the next."""


def paint_trunk(person: AbdomenPerson, canvas: Canvas, inner: Floats) -> None:
    """Everything but the organs of the belly.

    Args:
      inner: (x, y, z) `abdomen_organs.cavity` at the canvas's points.
    """
    p = canvas.points
    _, y, z = p
    muscle = union(inner - np.float32(person.wall), ellipsoid(p, (0.0, -62.0, 0.0), (82.0, 46.0, LONG)), 14.0)
    hips = np.float32(0.10) * np.maximum(-150 - z, 0)
    muscle = muscle - hips
    fat = np.float32(person.fat) * (1 + np.float32(0.25) * np.tanh((-z - 30) / 60) + np.float32(0.2) * (y < 0))
    skin = muscle - fat
    canvas.paint(Organ.COUCH, _couch(person, p))
    canvas.paint(Organ.MUSCLE, skin)
    canvas.paint(Organ.FAT, skin + 2.0)
    canvas.paint(Organ.MUSCLE, muscle)
    canvas.paint(Organ.FAT, inner)
    _paint_lungs_and_heart(person, canvas, inner)
    _paint_ribs(person, canvas, inner)
    _paint_spine(person, canvas)
    _paint_pelvis(canvas)


def _paint_lungs_and_heart(person: AbdomenPerson, canvas: Canvas, inner: Floats) -> None:
    top = canvas.box(((-150, 150), (-110, 110), (-70, 300)))
    p = canvas.at(top)
    _, y, z = p
    beneath = organs.diaphragm(p)
    canvas.paint(Organ.MUSCLE, np.maximum(np.abs(beneath) - 1.5, inner[top] + 1), top)
    recess = -18 + np.float32(0.5) * y - z  # the lungs reach down farthest at the back
    middle = ellipsoid(p, (0.0, -34.0, 0.0), (26.0, 44.0, LONG))
    canvas.paint(Organ.LUNG, np.maximum(np.maximum(inner[top] + 2, 2 - beneath), np.maximum(recess, 2 - middle)), top)
    heart = person.organ("heart", p, (-22.0, 34.0, 112.0), (58.0, 46.0, 46.0))
    heart = np.maximum(np.maximum(heart, inner[top] + 6), 2 - beneath)
    canvas.paint(Organ.FAT, heart - 4, top)
    canvas.paint(Organ.HEART, heart, top)
    canvas.paint(Organ.MUSCLE, ellipsoid(p, (-8.0, -14.0, 0.0), (8.0, 7.0, LONG)) + np.maximum(30 - z, 0), top)


def _paint_ribs(person: AbdomenPerson, canvas: Canvas, inner: Floats) -> None:
    top = canvas.box(((-170, 170), (-120, 130), (-95, 300)))
    x, y, z = canvas.at(top)
    back = np.clip((y + 80) / 170, 0, 1)
    margin = -72 + 20 * back + 115 * back**2
    level = np.mod(z + np.float32(0.55) * y, np.float32(RIB_MM)) - np.float32(RIB_MM / 2)
    shell = np.abs(inner[top] - np.float32(0.5 * person.wall)) - np.float32(0.3 * person.wall)
    rib = organs.intersection(shell, np.abs(level) - np.float32(5.5), 3.0)
    rib = np.maximum(rib, np.maximum(margin - z, np.maximum(24 - np.abs(x), y - 70)))
    canvas.paint(Organ.BONE, rib, top)
    canvas.paint(Organ.MARROW, rib + 2.2, top)
    sternum = np.maximum(shell, np.maximum(np.abs(x) - 17, np.maximum(78 - z, 40 - y)))
    canvas.paint(Organ.BONE, sternum, top)
    canvas.paint(Organ.MARROW, sternum + 2.2, top)


def _paint_spine(person: AbdomenPerson, canvas: Canvas) -> None:
    where = canvas.box(((-60, 60), (-140, 0), (-1000, 1000)))
    p = canvas.at(where)
    x, y, z = p
    size = np.array(person.scale["spine"])
    height = np.mod(z + np.float32(4 * person.shift["spine"][2]), np.float32(VERTEBRA_MM))
    disc = np.abs(height - np.float32(VERTEBRA_MM / 2)) - np.float32(VERTEBRA_MM / 2 - 4)
    body = ellipsoid(p, (0.0, -60.0, 0.0), (23.0 * size[0], 17.0 * size[1], LONG))
    psoas = ellipsoid(_apart(p), (38.0, -58.0, 0.0), (17.0, 18.0, LONG)) + np.maximum(20 + z, 0) * np.float32(0.25)
    canvas.paint(Organ.MUSCLE, psoas, where)
    canvas.paint(Organ.DISC, body, where)
    vertebra = np.maximum(body, disc)
    canvas.paint(Organ.BONE, vertebra, where)
    canvas.paint(Organ.MARROW, vertebra + 2.5, where)
    canal = ellipsoid(p, (0.0, -87.0, 0.0), (11.0, 9.0, LONG))
    arch = np.maximum(np.maximum(canal - 4.5, y + 72), np.abs(disc + 4) - 12)
    spinous = np.maximum(np.maximum(np.abs(x) - 3.0, np.abs(y + 105) - 13), disc + 6)
    transverse = np.maximum(ellipsoid(_apart(p), (24.0, -88.0, 0.0), (19.0, 5.0, LONG)), disc + 7)
    for bone in (spinous, transverse, np.maximum(arch, 0.5 - canal)):
        canvas.paint(Organ.BONE, bone.astype(np.float32, copy=False), where)
    canvas.paint(Organ.CANAL, canal, where)


def _paint_pelvis(canvas: Canvas) -> None:
    low = canvas.box(((-170, 170), (-130, 90), (-400, -135)))
    p = canvas.at(low)
    half = _apart(p)
    wing = ellipsoid(half, (62.0, -18.0, -235.0), (62.0, 66.0, 92.0))
    plate = np.maximum(np.abs(wing) - 5.5, np.maximum(40 - half[0], p[1] - 40))
    canvas.paint(Organ.BONE, plate, low)
    canvas.paint(Organ.MARROW, plate + 2.5, low)
    sacrum = ellipsoid(p, (0.0, -74.0, -235.0), (46.0, 24.0, 60.0))
    canvas.paint(Organ.BONE, sacrum, low)
    canvas.paint(Organ.MARROW, sacrum + 2.5, low)


def _couch(person: AbdomenPerson, p: Floats) -> Floats:
    """The table top beneath the body, bent to it; MRI does not see it."""
    x, y, _ = p
    top = np.float32(-118 - 1.15 * person.fat) + np.float32(0.0011) * x * x
    return np.maximum(np.abs(y - top + 4) - 4, np.abs(x) - 170)  # type: ignore[no-any-return]


def _apart(p: Floats) -> Floats:
    """The points with |x| in place of x: left and right in one."""
    return np.concatenate([np.abs(p[:1]), p[1:]])
