"""Tumours and cysts of a procedural liver: how many, where, how large, of what shape and contrast."""

import dataclasses
import functools
from typing import Literal

import numpy as np
from scipy.spatial.transform import Rotation

from tlseg_jax.phantoms.abdomen_organs import LIVER_BOX, liver
from tlseg_jax.phantoms.abdomen_person import POPULATION, AbdomenPerson
from tlseg_jax.phantoms.phantom_shapes import Floats, Vec, ellipsoid, generator_of, union

TumourKind = Literal["hypodense", "hypervascular", "rim", "isodense", "cyst"]

KIND_SHARES: dict[TumourKind, float] = {"hypodense": 0.42, "hypervascular": 0.22, "rim": 0.22, "isodense": 0.14}
"""How often a tumour is of each kind; cysts are drawn apart, for they are no tumours and are not labelled."""

TUMOUR_FREE = 0.1
"""Share of persons without any tumour."""

RADIUS_MM = (4.5, 26.0)
"""Smallest and largest radius of a tumour; its logarithm is uniform, so that small ones prevail."""

LARGE_ENOUGH_MM = 10.0
"""A first tumour of this radius or more shows in every scan, whatever its slices."""


@dataclasses.dataclass(frozen=True, eq=False)
class TumourContrast:
    """What a lesion adds to the liver around it: the inside, the rim, and slow variation of the inside."""

    core: float
    rim: float
    mottle: float


@dataclasses.dataclass(frozen=True, eq=False)
class Lesion:
    """One tumour, or a cyst.

    Attributes:
      centre: schematic mm.
      radius: mean radius, mm.
      lobes: (n, 3, 3) turned axes and (n, 3) centres and radii of the ellipsoids that make it, mm.
      waves: (n, 4) wave numbers, per radius, and phase of the waves that dent its surface.
      dents: height of each wave, relative to the radius.
      rim_mm: thickness of its rim.
      ct: contrast in HU.
      mr: contrast as a fraction of the liver's arterial signal.
    """

    kind: TumourKind
    centre: Vec
    radius: float
    lobes: tuple[tuple[Floats, Vec, Vec], ...]
    waves: Floats
    dents: float
    rim_mm: float
    ct: TumourContrast
    mr: TumourContrast

    @property
    def reach(self) -> float:
        """The lesion lies within this distance of its centre, mm."""
        return 2.4 * self.radius + 6

    def distance(self, p: Floats) -> Floats:
        """Signed distance at points (3, ...), the liver's own surface left out."""
        relative = p - np.array(self.centre, np.float32).reshape(3, *[1] * (p.ndim - 1))
        lobes = (ellipsoid(np.tensordot(turn, relative, 1), at, radii) for turn, at, radii in self.lobes)
        out = functools.reduce(lambda a, b: union(a, b, 0.5 * self.radius), lobes)
        wander = np.zeros_like(out)
        for *k, phase in self.waves:
            wander += np.cos(np.tensordot(np.float32(k) / np.float32(self.radius), relative, 1) + phase)
        return out + np.float32(self.dents * self.radius) * wander


def draw_lesions(body: AbdomenPerson, person: int, seed: int, least: int = 0) -> tuple[Lesion, ...]:
    """One person's tumours, and on some livers a cyst or two.

    Args:
      least: tumours at the least; where 1 or more, the first is large enough to show in every scan.
    """
    rng = generator_of(seed, person, POPULATION, "lesions")
    count = 0 if rng.uniform() < TUMOUR_FREE else int(min(1 + rng.poisson(1.9), 8))
    count = max(count, least)
    cysts = int(rng.integers(1, 3)) if rng.uniform() < 0.3 else 0
    box = np.array(LIVER_BOX)
    candidates = rng.uniform(box[:, :1], box[:, 1:], (3, 6000)).astype(np.float32)
    depth = -liver(body, candidates)
    lesions: list[Lesion] = []
    for i in range(count + cysts):
        own = generator_of(seed, person, POPULATION, "lesion", str(i) if i < count else f"cyst {i - count}")
        radius = float(np.exp(own.uniform(*np.log(RADIUS_MM if i < count else (4.0, 9.0)))))
        if i == 0 and least:
            radius = max(radius, LARGE_ENOUGH_MM)
        # Lesions keep apart where they can, and lie at least half inside.
        fits = depth > 0.55 * radius
        for other in lesions:
            gap = np.linalg.norm(candidates - np.array(other.centre)[:, None], axis=0)
            fits &= gap > other.radius + radius + 4
        places = np.flatnonzero(fits)
        if not places.size:
            if i >= max(least, 1):
                continue
            places = np.argmax(depth, keepdims=True)
        c = candidates[:, own.choice(places)]
        kinds = list(KIND_SHARES)
        kind = kinds[own.choice(len(kinds), p=list(KIND_SHARES.values()))] if i < count else "cyst"
        lesions.append(_draw_lesion(own, kind, (float(c[0]), float(c[1]), float(c[2])), radius))
    return tuple(lesions)


def _draw_lesion(rng: np.random.Generator, kind: TumourKind, centre: Vec, radius: float) -> Lesion:
    lobes = []
    for n in range(1 if kind == "cyst" else int(rng.choice([1, 2, 3], p=[0.55, 0.3, 0.15]))):
        turn = Rotation.random(random_state=rng).as_matrix().astype(np.float32)
        a, b, c = radius * np.exp(rng.normal(0, 0.14, 3)) * (1.0 if n == 0 else rng.uniform(0.45, 0.75))
        x, y, z = (0.0, 0.0, 0.0) if n == 0 else rng.normal(0, 0.45, 3) * radius
        lobes.append((turn, (float(x), float(y), float(z)), (float(a), float(b), float(c))))
    ct, mr = _draw_contrast(rng, kind)
    waves = np.concatenate([rng.normal(0, 2.2, (6, 3)), rng.uniform(0, 2 * np.pi, (6, 1))], 1).astype(np.float32)
    dents = 0.015 if kind == "cyst" else 0.075
    return Lesion(kind, centre, radius, tuple(lobes), waves, dents, float(rng.uniform(2.5, 4.5)), ct, mr)


def _draw_contrast(rng: np.random.Generator, kind: TumourKind) -> tuple[TumourContrast, TumourContrast]:
    """Contrast in CT (HU) and arterial MRI (relative); most tumours are dark in CT and bright in arterial MRI."""
    u = rng.uniform
    if kind == "hypodense":
        return TumourContrast(-u(20, 42), -u(8, 20), u(3, 8)), TumourContrast(u(0.3, 0.7), u(0.25, 0.6), u(0.05, 0.15))
    if kind == "hypervascular":
        bright = u(18, 36)
        return TumourContrast(bright, 0.8 * bright, u(3, 8)), TumourContrast(u(0.45, 0.95), u(0.4, 0.8), u(0.05, 0.2))
    if kind == "rim":
        return TumourContrast(-u(28, 50), u(8, 25), u(3, 8)), TumourContrast(-u(0.0, 0.3), u(0.5, 0.9), u(0.05, 0.12))
    if kind == "isodense":
        ct = u(8, 13) * rng.choice([-1, 1], p=[0.7, 0.3])
        return TumourContrast(ct, ct, u(2, 5)), TumourContrast(u(0.12, 0.28), u(0.12, 0.28), u(0.04, 0.1))
    return TumourContrast(-u(80, 95), -u(80, 95), 0.0), TumourContrast(-u(0.45, 0.65), -u(0.45, 0.65), 0.0)
