"""Who a procedural abdomen is: the parameters of one person's anatomy, without the tumours.

The frame is schematic RAS mm (x to the right, y to the front, z upwards) with its origin in the middle of
the body at the height of the liver. Sizes and places are round numbers: the relations matter.
"""

import dataclasses

import numpy as np

from tlseg_jax.phantoms.phantom_shapes import Field, Floats, Vec, ellipsoid, generator_of, random_field

POPULATION = "abdomen"

FIELD_SCALE = 0.5
"""Random fields cover the box of a head; at half scale that box holds an abdomen with room to spare."""

WARP_MM = ((40.0, 6.0), (20.0, 2.2))
"""Smoothness and standard deviation, in mm, of each octave of the random warp."""

ORGANS = (
    "right lobe",
    "left lobe",
    "tip",
    "caudate lobe",
    "spleen",
    "right kidney",
    "left kidney",
    "stomach",
    "gallbladder",
    "aorta",
    "cava",
    "heart",
    "spine",
    "pancreas",
    "colon",
)
"""What has a random place and size of its own."""


def broad_field(rng: np.random.Generator, *octaves: tuple[float, float]) -> Field:
    """A field over the abdomen: the sum of Gaussian ones, each of a smoothness and a standard deviation (mm)."""
    step = max(min(s for s, _ in octaves) * FIELD_SCALE / 2, 2.5)
    parts = [random_field(rng, s * FIELD_SCALE, step).values * np.float32(sd) for s, sd in octaves]
    return Field(np.sum(parts, axis=0, dtype=np.float32), step, FIELD_SCALE)


@dataclasses.dataclass(frozen=True, eq=False)
class AbdomenPerson:
    """Parameters of one abdomen; lengths in mm, factors without unit.

    Attributes:
      size: factors on x, y and z of the whole body.
      warp: three fields, added to the coordinates.
      fat: thickness of the fat under the skin.
      wall: thickness of the muscular wall, ribs included.
      left_lobe: factor on how far the liver reaches to the left.
      liver_surface: wander of the liver's surface, mm.
      bowel: where it is high there is bowel.
      gas: where it is high the bowel holds gas.
      mottle: pattern of the spleen in the arterial phase and of tumours.
      shift: displacement of each organ of `ORGANS`, mm.
      scale: factors on each organ's radii.
      vessels: (12, 3) displacements of the knots of the liver's vessels, mm.
    """

    size: Vec
    warp: tuple[Field, ...]
    fat: float
    wall: float
    left_lobe: float
    liver_surface: Field
    bowel: Field
    gas: Field
    mottle: Field
    shift: dict[str, Vec]
    scale: dict[str, Vec]
    vessels: Floats

    def organ(self, name: str, points: Floats, centre: Vec, radii: Vec) -> Floats:
        """First-order signed distance to an organ's ellipsoid, with this person's place and size for it."""
        c, r = np.add(centre, self.shift[name]), np.multiply(radii, self.scale[name])
        return ellipsoid(points, (c[0], c[1], c[2]), (r[0], r[1], r[2]))


def draw_abdomen_person(person: int, seed: int) -> AbdomenPerson:
    """One person of the population; the same one whatever the scanner."""
    rng = generator_of(seed, person, POPULATION, "anatomy")

    def around(mean: float, sd: float) -> float:
        return mean * float(np.exp(sd * np.clip(rng.standard_normal(), -2.0, 2.0)))

    def vec(mean: float, sd: float, relative: bool = False) -> Vec:
        a, b, c = mean + sd * np.clip(rng.standard_normal(3), -2.0, 2.0) * (mean if relative else 1.0)
        return (float(a), float(b), float(c))

    build = around(1.0, 0.045)
    return AbdomenPerson(
        size=(around(build, 0.02), around(build, 0.04), around(build, 0.03)),
        warp=tuple(broad_field(rng, *WARP_MM) for _ in range(3)),
        fat=around(15.0, 0.4),
        wall=around(13.0, 0.12),
        left_lobe=around(1.0, 0.18),
        liver_surface=broad_field(rng, (22.0, 2.0), (12.0, 0.8)),
        bowel=broad_field(rng, (11.0, 1.0)),
        gas=broad_field(rng, (16.0, 1.0)),
        mottle=broad_field(rng, (5.5, 1.0)),
        shift={name: vec(0.0, 4.0) for name in ORGANS},
        scale={name: vec(1.0, 0.07, relative=True) for name in ORGANS},
        vessels=rng.normal(0, 4.0, (12, 3)).astype(np.float32),
    )


def body_points(person: AbdomenPerson, world: Floats) -> Floats:
    """(3, ...) schematic mm of scanner mm: the person's size and warp undone."""
    size = np.array(person.size, np.float32).reshape(3, *[1] * (world.ndim - 1))
    p = world / size
    return p + np.stack([field.at(p) for field in person.warp])
