"""The shapes of a procedural abdomen's cavity, liver and other organs, as signed distances in schematic mm.

Each function takes points (3, ...) and gives the distance there, negative inside (see `phantom_shapes`), so
that a voxel grid and a handful of candidate places for a tumour can be asked alike.
"""

import numpy as np

from tlseg_jax.phantoms.abdomen_person import AbdomenPerson
from tlseg_jax.phantoms.phantom_shapes import Floats, Tube, ellipsoid, tube, union

LONG = 2000.0
"""A radius in mm that makes an ellipsoid an upright cylinder."""

LIVER_BOX = ((-125.0, 145.0), (-95.0, 105.0), (-125.0, 105.0))
"""The liver lies inside, in schematic mm."""


def intersection(a: Floats, b: Floats, blend: float) -> Floats:
    """Where both shapes are, the edge rounded over about `blend` mm."""
    return -union(-a, -b, blend)


def cavity(p: Floats) -> Floats:
    """The inside of the trunk's wall: a rounded oval that narrows upwards and downwards."""
    x, y, z = p
    narrow = 1 + np.minimum(np.float32(0.09) * ((z - 10) / 150) ** 2, np.float32(0.12))
    u, v = np.abs(x) * narrow / 128, np.abs(y - 6) * narrow / 86
    n = np.float32(2.4)
    k = np.maximum((u**n + v**n) ** (1 / n), np.float32(1e-3))
    slope = k ** (1 - n) * np.hypot(u ** (n - 1) / 128, v ** (n - 1) / 86)
    return ((k - 1) / np.maximum(slope, np.float32(0.5 / 128))).astype(np.float32, copy=False)


def diaphragm(p: Floats) -> Floats:
    """What lies beneath the diaphragm: two domes, the right one higher, and a saddle under the heart."""
    right = ellipsoid(p, (72.0, 2.0, -40.0), (80.0, 86.0, 126.0))
    left = ellipsoid(p, (-68.0, 2.0, -40.0), (76.0, 84.0, 110.0))
    middle = ellipsoid(p, (0.0, 12.0, -40.0), (84.0, 82.0, 104.0))
    return union(union(right, left, 25.0), middle, 15.0)


def kidney(person: AbdomenPerson, p: Floats, side: int) -> Floats:
    """One kidney, the right one for side +1 and the left for -1; its upper pole leans to the spine."""
    q = p.copy()
    drop = -62.0 if side > 0 else -48.0
    q[0] += np.float32(side * 0.22) * (p[2] - drop)
    q[1] += np.float32(0.15) * (p[2] - drop)
    name = "right kidney" if side > 0 else "left kidney"
    return person.organ(name, q, (side * 58.0, -44.0, drop), (25.0, 28.0, 50.0))


def gallbladder(person: AbdomenPerson, p: Floats) -> Floats:
    """The gallbladder, under the right lobe."""
    q = p.copy()
    q[2] += np.float32(0.5) * (p[1] - 40)
    return person.organ("gallbladder", q, (48.0, 40.0, -42.0), (13.0, 24.0, 16.0))


def cava(person: AbdomenPerson, p: Floats) -> Floats:
    """The inferior vena cava, which runs in a groove at the back of the liver up to the heart."""
    q = p.copy()
    q[1] -= np.float32(0.12) * np.maximum(p[2], 0)
    shape = person.organ("cava", q, (22.0, -32.0, 0.0), (11.0, 10.0, LONG))
    return np.maximum(shape, p[2] - 95)


def aorta(person: AbdomenPerson, p: Floats) -> Floats:
    """The aorta left of the middle, which parts into the two iliac arteries below."""
    apart = np.float32(0.35) * np.maximum(-150 - p[2], 0)
    q = p.copy()
    q[0] = np.abs(p[0] + 7) - apart
    q[1] += np.float32(0.08) * np.maximum(p[2], 0)
    c = np.array(person.shift["aorta"]) * 0.5
    r = 9.5 * person.scale["aorta"][0]
    return ellipsoid(q, (0.0, -33.0 + c[1], 0.0), (r, r, LONG))


def liver(person: AbdomenPerson, p: Floats) -> Floats:
    """The liver, its vessels and tumours included: a large right lobe, a left lobe that tapers to the left.

    It fits under the diaphragm and within the wall, and gives way to kidney, gallbladder, vena cava and spine.
    """
    x, y, z = p
    right = person.organ("right lobe", p, (70.0, 0.0, 4.0), (68.0, 76.0, 80.0))
    tip = person.organ("tip", p, (88.0, -6.0, -48.0), (34.0, 50.0, 46.0))
    q = p.copy()
    # The left lobe thins out to the left and lies in front of the stomach.
    thin = 1 / (1 - np.float32(0.5) * np.clip(-x / 110, 0, 1))
    q[1] = 46 + (y - 46) * thin
    q[2] = 32 + (z - 32) * thin - np.float32(0.1) * np.minimum(x, 0)
    left = person.organ("left lobe", q, (-2.0, 42.0, 32.0), (76.0 * person.left_lobe, 36.0, 40.0))
    back = person.organ("caudate lobe", p, (14.0, -10.0, 20.0), (26.0, 22.0, 30.0))
    shape = union(union(union(right, tip, 25.0), left, 30.0), back, 14.0)
    shape = shape + person.liver_surface.at(p)
    # The lower face rises from the tip on the right to the left lobe.
    floor = -78 + 72 * (1 - np.exp(-np.maximum(84 - x, 0) / 55)) + np.float32(0.12) * (y - 20)
    shape = intersection(shape, (floor - z) * np.float32(0.75), 16.0)
    fissure = np.maximum(np.abs(x - 14 - np.float32(0.25) * (y - 40)) - 2, np.maximum(52 - y, z - 36))
    shape = intersection(shape, -fissure, 4.0)
    shape = intersection(shape, cavity(p) + 3, 5.0)
    shape = intersection(shape, diaphragm(p) + 3, 5.0)
    shape = intersection(shape, 4 - kidney(person, p, 1), 6.0)
    shape = intersection(shape, 1 - gallbladder(person, p), 4.0)
    shape = np.maximum(shape, 1 - cava(person, p))
    return intersection(shape, 30 - np.hypot(x, y + 62), 6.0)


def spleen(person: AbdomenPerson, p: Floats) -> Floats:
    """The spleen: a crescent along the left wall at the back."""
    outer = person.organ("spleen", p, (-96.0, -34.0, 22.0), (36.0, 46.0, 46.0))
    hollow = ellipsoid(p, (-52.0, -2.0, 22.0), (42.0, 46.0, 70.0))
    shape = intersection(intersection(outer, -hollow, 8.0), cavity(p) + 4, 5.0)
    return intersection(intersection(shape, diaphragm(p) + 4, 5.0), 4 - kidney(person, p, -1), 5.0)


def stomach(person: AbdomenPerson, p: Floats) -> Floats:
    """The stomach: the fundus under the left dome, the body running down to the middle."""
    fundus = person.organ("stomach", p, (-62.0, 12.0, 28.0), (36.0, 42.0, 40.0))
    body = person.organ("stomach", p, (-42.0, 44.0, -12.0), (40.0, 28.0, 30.0))
    shape = intersection(union(fundus, body, 22.0), cavity(p) + 6, 6.0)
    return intersection(shape, diaphragm(p) + 5, 6.0)


def liver_vessels(person: AbdomenPerson) -> dict[str, tuple[Tube, ...]]:
    """Portal branches and hepatic veins, as tubes that thin out from the hilum and from the vena cava."""
    s = person.vessels.astype(np.float64)

    def run(*knots: tuple[float, float, float, float], moved: slice) -> Tube:
        table = np.array(knots)
        table[1:, :3] += s[moved][: len(knots) - 1]
        return tube(table)

    root, hilum = (22.0, -24.0, 66.0), (34.0, 4.0, -8.0)
    return {
        "hepatic": (
            run((*root, 5.5), (62.0, -22.0, 44.0, 4.5), (104.0, -8.0, 4.0, 2.2), moved=slice(0, 2)),
            run((*root, 5.0), (46.0, 22.0, 42.0, 4.2), (62.0, 54.0, 2.0, 2.0), moved=slice(2, 4)),
            run((*root, 4.5), (0.0, 14.0, 48.0, 3.6), (-40.0, 48.0, 36.0, 1.8), moved=slice(4, 6)),
        ),
        "portal": (
            run(
                (2.0, -12.0, -46.0, 6.5),
                (*hilum, 6.5),
                (74.0, 0.0, 2.0, 4.8),
                (112.0, 8.0, 22.0, 2.0),
                moved=slice(6, 9),
            ),
            run((*hilum, 5.5), (16.0, 34.0, 18.0, 4.5), (-30.0, 46.0, 26.0, 1.8), moved=slice(9, 11)),
            run((62.0, 2.0, 0.0, 4.0), (88.0, -20.0, -30.0, 3.0), (98.0, -26.0, -66.0, 1.8), moved=slice(10, 12)),
        ),
    }
