"""The deep structures: caudates, lateral ventricles and what lies beside them, in MNI305 mm."""

import numpy as np

from tlseg_jax.phantoms.phantom_person import Person
from tlseg_jax.phantoms.phantom_shapes import BoxMm, Floats, Tube, Vec, ellipsoid, tube, union, within

DEEP_BOX = ((-46.0, 46.0), (-86.0, 46.0), (-48.0, 40.0))
"""Every structure of this file lies inside, whatever the person."""

REACH = 6.0
"""Distances to the tubes are exact up to here, in mm."""

# x (away from the midline), y, z, radius
CAUDATE = (
    (11.5, 20.0, -1.0, 4.6),
    (12.0, 18.0, 3.0, 6.2),
    (13.0, 13.0, 8.0, 6.1),
    (14.5, 5.0, 12.5, 5.0),
    (16.5, -5.0, 16.5, 3.8),
    (19.0, -15.0, 18.5, 3.0),
    (22.5, -24.0, 17.5, 2.5),
    (26.0, -31.5, 12.5, 2.1),
    (28.5, -35.0, 5.0, 1.8),
    (29.5, -33.0, -3.0, 1.5),
)
VENTRICLE = (
    (10.0, 31.0, 2.0, 2.0),
    (9.5, 27.0, 6.0, 5.0),
    (7.5, 18.0, 10.5, 6.8),
    (7.0, 8.0, 14.5, 6.2),
    (8.0, -4.0, 18.0, 5.0),
    (11.0, -16.0, 20.0, 5.0),
    (15.5, -28.0, 18.5, 5.4),
    (22.0, -38.0, 12.0, 6.2),
    (28.0, -42.0, 2.0, 4.8),
    (32.0, -37.0, -7.0, 3.0),
    (33.5, -27.0, -13.0, 2.2),
    (32.0, -16.0, -17.0, 1.8),
)
WING = (
    (9.0, 30.0, 8.0, 1.5),
    (12.0, 24.0, 13.5, 3.0),
    (13.5, 14.0, 17.5, 3.2),
    (14.0, 2.0, 20.0, 3.0),
    (14.5, -10.0, 22.0, 2.8),
    (16.0, -20.0, 22.0, 2.8),
    (19.0, -30.0, 18.0, 2.6),
)
OCCIPITAL_HORN = ((25.0, -42.0, 8.0, 4.6), (26.0, -52.0, 6.0, 3.8), (24.0, -62.0, 4.5, 2.6), (21.0, -71.0, 4.0, 1.2))


def deep_shapes(person: Person, p: Floats) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Signed distances in mm of the deep structures, and positions along the two curves.

    Args:
      p: (3, x, y, z) MNI305 mm.

    Returns:
      Distances by name, and for "caudate" and "ventricle" the position from front (0) to tail (1).
    """
    half = np.concatenate([np.abs(p[:1]), p[1:]])
    side = np.tanh(p[0] / 4)  # +1 right, -1 left, with no jump at the midline
    s = person.shift

    def at(centre: Vec, i: int) -> Vec:
        return (centre[0] + float(s[i, 0]), centre[1] + float(s[i, 1]), centre[2] + float(s[i, 2]))

    shapes = {
        "thalamus": ellipsoid(half, at((11.0, -18.0, 7.0), 0), (8.8, 14.0, 8.5)),
        "putamen": ellipsoid(_slanted(half), at((25.5, 2.0, 2.0), 1), (5.2, 15.0, 9.5)),
        "pallidum": ellipsoid(_slanted(half), at((19.5, -3.0, -1.0), 2), (3.6, 8.5, 5.5)),
    }
    # Beneath the internal capsule the caudate goes over into the putamen, in the same grey.
    accumbens = ellipsoid(half, at((14.0, 11.0, -6.0), 3), (6.5, 5.0, 4.0))
    shapes["putamen"] = union(shapes["putamen"], accumbens, 3.0)
    h = person.hippocampus
    shapes["hippocampus"] = union(
        ellipsoid(half, at((26.5, -22.0, -15.0), 4), (5.5 * h, 15.0 * h, 5.0 * h)),
        ellipsoid(half, at((23.5, -3.0, -20.0), 4), (7.5, 7.0, 7.0)),
        2.0,
    )
    caudate, along_caudate = _along(_tube(CAUDATE, person.caudate, s[5]), half, ((2, 42), (-48, 36), (-20, 34)))
    caudate -= np.float32(5 * person.asymmetry[1]) * side
    body, along_body = _along(_tube(VENTRICLE, person.ventricle, s[5]), half, ((0, 48), (-60, 46), (-32, 40)))
    horn, _ = _along(
        _tube(OCCIPITAL_HORN, person.ventricle * person.horn, s[5]), half, ((8, 44), (-86, -28), (-12, 24))
    )
    wing, _ = _along(_tube(WING, person.ventricle, s[5]), half, ((0, 32), (-40, 40), (-4, 36)))
    lateral = union(union(body, horn, 2.0), wing, 6.0) - np.float32(5 * person.asymmetry[0]) * side
    # The septum and the fornix part left and right; the caudate and the thalamus bulge into the lumen.
    lateral = np.maximum(lateral, np.float32(1.3) - half[0])
    lateral = np.maximum(lateral, -shapes["thalamus"] - 0.5)
    shapes["ventricle"] = np.maximum(lateral, -caudate)
    shapes["caudate"] = caudate
    third = np.maximum(half[0] - np.float32(person.third), ellipsoid(half, (0.0, -11.0, 0.0), (6.0, 15.0, 11.0)))
    aqueduct = ellipsoid(half, (0.0, -43.0, -31.0), (5.0, 5.0, 9.0))
    shapes["cistern"] = np.minimum(third, aqueduct)
    return shapes, {"caudate": along_caudate, "ventricle": along_body}


def _slanted(half: Floats) -> Floats:
    """Coordinates in which the lentiform nucleus, which runs outwards to the back, is upright."""
    out = half.copy()
    out[0] += np.float32(0.22) * (half[1] - 2)
    return out


def _tube(knots: tuple[tuple[float, ...], ...], factor: float, shift: Floats) -> Tube:
    table = np.array(knots, np.float64)
    table[:, :3] += np.asarray(shift, np.float64) * (1.0, 1.0, 0.6)
    table[:, 3] *= factor
    return tube(table)


def _along(t: Tube, half: Floats, box: BoxMm) -> tuple[Floats, Floats]:
    """`Tube.distance`, asked only inside `box`."""
    inside = within(half, box)
    distance = np.full(half.shape[1:], REACH, np.float32)
    along = np.zeros(half.shape[1:], np.float32)
    distance[inside], along[inside] = t.distance(half[:, inside], REACH)
    return distance, along
