"""Augmentation inside the jitted step, keyed by (seed, step, sample), so that any sample can be replayed."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Bool, Float, Integer, Key

from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.input.randomise import randomise
from tlseg_jax.preprocess.codes import mirror_table

WholeNumber = int | Integer[Array, ""]
_PERMUTATIONS = tuple(itertools.permutations(range(3)))


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Which random changes a training patch goes through.

    Attributes:
      flip_left_right: mirror the x axis (Table 1).
      random_rotations: 90 degree rotations and flips (Table 1, HDT-WB): all 48 symmetries of a cube
        where the patch is one, else the 8 flips and the permutations that keep its shape.
      intensity: contrast, brightness, gamma, a smooth bias field and noise; ours.
      affine: rotation to 10 degrees, scaling to 10% and shift to 4% of the side, times this; 0: none; ours.
      elastic: standard deviation, in voxels, of the strongest smooth displacements that are drawn; 0: none; ours.
      randomise: another contrast, bias field, sharpness and noise (`randomise.randomise`), in place of
        `intensity`, which is the milder form of the same.
      mirror_codes: label code -> what it is in a mirror (`codes.mirror_table`); (): the same.
      one_structure: whether a label is 0 and 1 alone.
      partners: where each structure is in a mirror (`structures.mirrored`); (): where it was.
    """

    flip_left_right: bool = False
    random_rotations: bool = False
    intensity: bool = False
    affine: float = 0.0
    elastic: float = 0.0
    randomise: bool = False
    mirror_codes: tuple[int, ...] = ()
    one_structure: bool = True
    partners: tuple[int, ...] = ()


def augmentation_for(
    spec: DatasetSpec, *, intensity: bool, affine: float, elastic: float = 0.0, randomise: bool = False
) -> Augmentation:
    """Table 1's augmentation of a data set, plus ours where the recipe says so."""
    codes = mirror_table(spec.mirrored, spec.exclusive) if spec.mirrored else ()
    one = len(spec.structures) == 1 and spec.unmarked_value is None
    partners = (spec.mirrored or ()) if codes else ()
    flip, turn = spec.grid.flip_left_right, spec.grid.random_rotations
    return Augmentation(flip, turn, intensity, affine, elastic, randomise, codes, one, partners)


def sample_key(seed: WholeNumber, step: WholeNumber, sample: WholeNumber) -> Key[Array, ""]:
    """The key of one sample of one step."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), step), sample)


def sample_keys(seed: WholeNumber, step: WholeNumber, batch: int, first: WholeNumber = 0) -> Key[Array, " {batch}"]:
    """Those of a batch; `first` is the place of its first sample in the whole batch, where it is a part of one."""
    return jax.vmap(lambda i: sample_key(seed, step, i))(first + jnp.arange(batch))


def mirrors(seed: WholeNumber, step: WholeNumber, batch: int, first: WholeNumber = 0) -> Bool[Array, " {batch}"]:
    """Which samples of a step `augment_batch` mirrors, where it mirrors at all."""
    return jax.vmap(lambda k: _mirrored(jax.random.split(k, 4)[0]))(sample_keys(seed, step, batch, first))


def marks_in_mirror(
    marked: Integer[Array, "batch structures"],
    sides: tuple[int, ...],
    seed: WholeNumber,
    step: WholeNumber,
    augmentation: Augmentation,
    first: WholeNumber = 0,
) -> Integer[Array, "batch structures"]:
    """Which structures the label maps of a step mark once `augment_batch` has mirrored some of them.

    A map that marks the left one of a pair marks the right one in a mirror.

    Args:
      marked: 1 for each structure that a sample's own map marks.
      first: place of the first sample in the whole batch, where this is a part of one.
    """
    if not augmentation.partners or not (augmentation.flip_left_right or augmentation.random_rotations):
        return marked

    def odd(key: jax.Array) -> jax.Array:
        flip, turn, *_ = jax.random.split(key, 4)
        return _turned(turn, sides)[3] if augmentation.random_rotations else _mirrored(flip)

    mirror = jax.vmap(odd)(sample_keys(seed, step, marked.shape[0], first))
    return jnp.where(mirror[:, None], marked[:, jnp.asarray(augmentation.partners)], marked)


def _mirrored(key: jax.Array) -> jax.Array:
    return jax.random.bernoulli(key)


def augment_batch(
    image: Float[Array, "batch x y last"],
    label: Integer[Array, "batch x y *z"],
    seed: WholeNumber,
    step: WholeNumber,
    augmentation: Augmentation,
    first: WholeNumber = 0,
) -> tuple[Float[Array, "batch x y last"], Integer[Array, "batch x y *z"]]:
    """Augment every sample of a batch with its own key.

    Args:
      image: (batch, x, y, z), or of slices (batch, x, y, channels), z-scored or scaled to -1 to 1.
      label: (batch, x, y, z) or (batch, x, y).
      first: place of the first sample in the whole batch, where this is a part of one.
    """
    keys = sample_keys(seed, step, image.shape[0], first)
    return jax.vmap(lambda k, i, t: augment(k, i, t, augmentation))(keys, image, label)


def augment(
    key: Key[Array, ""], image: Float[Array, "x y last"], label: Integer[Array, "x y *z"], augmentation: Augmentation
) -> tuple[Float[Array, "x y last"], Integer[Array, "x y *z"]]:
    """Augment one patch (x, y, z) or slice (x, y, channels); the same key always does the same."""
    flip, turn, warp, intensity = jax.random.split(key, 4)
    if augmentation.random_rotations:
        image, label = _rotate(turn, image, label, augmentation.mirror_codes)
    mirror = _mirrored(flip) if augmentation.flip_left_right and not augmentation.random_rotations else None
    if mirror is not None:
        label = jnp.where(mirror, in_mirror(label, augmentation.mirror_codes), label)
        if not (augmentation.affine or augmentation.elastic):
            image, label = (jnp.where(mirror, v[::-1], v) for v in (image, label))
    if augmentation.affine or augmentation.elastic:
        # Else XLA computes what comes before anew for each of the eight neighbours of a point.
        image, label = jax.lax.optimization_barrier((image, label))
        moved = _warp(warp, image, label, mirror, augmentation)
        image, label = jax.lax.optimization_barrier(moved)
    if augmentation.randomise:
        image = randomise(intensity, image)
    elif augmentation.intensity:
        image = _intensity(intensity, image, label.ndim)
    return image, label


def in_mirror(label: jax.Array, mirror_codes: tuple[int, ...]) -> jax.Array:
    """A mirrored label with the codes of the structures' partners."""
    return jnp.asarray(mirror_codes, label.dtype)[label] if mirror_codes else label


def _rotate(
    key: jax.Array, image: jax.Array, label: jax.Array, mirror_codes: tuple[int, ...]
) -> tuple[jax.Array, jax.Array]:
    """A random axis permutation that keeps the shape, then a random flip of each axis."""
    keeping, choice, flipped, odd = _turned(key, image.shape)
    if mirror_codes:
        label = jnp.where(odd, in_mirror(label, mirror_codes), label)

    def turn(v: jax.Array) -> jax.Array:
        branches = [lambda v, p=p: jnp.transpose(v, p) for p in keeping]
        v = jax.lax.switch(choice, branches, v)
        for axis, mirror in enumerate(flipped):
            v = jnp.where(mirror, jnp.flip(v, axis), v)
        return v

    return turn(image), turn(label)


def _turned(key: jax.Array, shape: tuple[int, ...]) -> tuple[list[tuple[int, ...]], jax.Array, jax.Array, jax.Array]:
    """Permutations that keep the shape, the one that is drawn, the axes that are flipped, and whether it is a mirror.

    What is left stays left in a rotation and becomes right in a mirror.
    """
    keeping = [p for p in _PERMUTATIONS if tuple(shape[i] for i in p) == shape]
    which, flips = jax.random.split(key)
    choice, flipped = jax.random.randint(which, (), 0, len(keeping)), jax.random.bernoulli(flips, shape=(3,))
    odd = jnp.asarray([_is_odd(p) for p in keeping])[choice] ^ (jnp.sum(flipped) % 2 == 1)
    return keeping, choice, flipped, odd


def _is_odd(permutation: tuple[int, ...]) -> bool:
    """Whether an odd number of swaps makes it: such a one of a cube's axes is a mirror image."""
    pairs = itertools.combinations(permutation, 2)
    return sum(a > b for a, b in pairs) % 2 == 1


KNOTS = 14
"""Voxels between the points whose displacements are drawn, about: structures of a brain move by themselves so far."""


def _displacements(key: jax.Array, sides: tuple[int, ...], elastic: float) -> jax.Array:
    """(axes, points): smooth, of a random strength up to `elastic`."""
    points, strength = jax.random.split(key)
    knots = tuple(max(3, round(s / KNOTS) + 1) for s in sides)
    drawn = jax.random.normal(points, (len(sides), *knots)) * jax.random.uniform(strength, maxval=elastic)
    return jax.image.resize(drawn, (len(sides), *sides), "cubic").reshape(len(sides), -1)


def rotation(angles: Float[Array, "3"]) -> Float[Array, "3 3"]:
    """The rotation about z, then y, then x by these angles, in radians."""
    (cx, cy, cz), (sx, sy, sz) = jnp.cos(angles), jnp.sin(angles)
    one, zero = jnp.ones(()), jnp.zeros(())

    def rows(*r: tuple[jax.Array, ...]) -> jax.Array:
        return jnp.stack([jnp.stack(i) for i in r])

    return (
        rows((one, zero, zero), (zero, cx, -sx), (zero, sx, cx))
        @ rows((cy, zero, sy), (zero, one, zero), (-sy, zero, cy))
        @ rows((cz, -sz, zero), (sz, cz, zero), (zero, zero, one))
    )


def _warp(
    key: jax.Array, image: jax.Array, label: jax.Array, mirror: jax.Array | None, augmentation: Augmentation
) -> tuple[jax.Array, jax.Array]:
    """A random warp of a patch, or of its mirror image along x, which costs no pass of its own here."""
    strength = augmentation.affine
    angles, scales, shifts = jax.random.split(key, 3)
    turned = rotation(jax.random.uniform(angles, (3,), minval=-1, maxval=1) * jnp.deg2rad(10.0 * strength))
    matrix = turned * jax.random.uniform(scales, (3,), minval=1 - 0.1 * strength, maxval=1 + 0.1 * strength)
    # In a plane it is the part of the turn that does not leave it.
    axes = label.ndim
    matrix = matrix[:axes, :axes]
    side = jnp.array(label.shape, jnp.float32)
    shift = jax.random.uniform(shifts, (3,), minval=-1, maxval=1)[:axes] * 0.04 * strength * side
    centre = (side - 1) / 2
    grid = jnp.stack(jnp.meshgrid(*[jnp.arange(n) for n in label.shape], indexing="ij")).reshape(axes, -1)
    at = matrix @ (grid - centre[:, None]) + (centre + shift)[:, None]
    if augmentation.elastic:
        at = at + _displacements(jax.random.fold_in(key, 3), label.shape, augmentation.elastic)
    if mirror is not None:
        at = at.at[0].set(jnp.where(mirror, side[0] - 1 - at[0], at[0]))
    one_by_one = linear if image.ndim == axes else jax.vmap(linear, (-1, None), -1)
    moved, at = jax.lax.optimization_barrier((one_by_one(image, at).reshape(image.shape), at))
    if (
        not augmentation.one_structure
    ):  # the nearest voxel's code: of many, an interpolation each would cost more than the step
        return moved, map_coordinates(label, list(at), order=0, mode="nearest").reshape(label.shape)
    # Linear on the mask, cut at one half: smoother than the nearest voxel and never a new value.
    mask = linear(label.astype(image.dtype), at)
    return moved, (mask > 0.5).astype(label.dtype).reshape(label.shape)


def linear(volume: Float[Array, "x y *z"], at: Float[Array, "axes points"]) -> Float[Array, " points"]:
    """Linear interpolation between voxels or pixels; beyond the faces the nearest one's value.

    `map_coordinates` gives the same in twenty times the time, on a CPU and of two volumes at the same points.

    Args:
      at: in voxels.
    """
    sides = volume.shape
    at = jnp.clip(at, 0, jnp.array(sides, at.dtype)[:, None] - 1)
    low = jnp.floor(at).astype(jnp.int32)
    high = jnp.minimum(low + 1, jnp.array(sides)[:, None] - 1)
    part = at - low
    rows = jnp.array([math.prod(sides[i + 1 :]) for i in range(len(sides))])[:, None]
    places, weights = (low * rows, high * rows), (1 - part, part)
    flat, total = volume.reshape(-1), jnp.zeros(at.shape[1], volume.dtype)
    for corner in itertools.product((0, 1), repeat=len(sides)):
        place = sum(places[c][axis] for axis, c in enumerate(corner))
        weight = math.prod(weights[c][axis] for axis, c in enumerate(corner))
        total = total + weight * jnp.take(flat, place, mode="clip")
    return total


def _intensity(key: jax.Array, image: jax.Array, axes: int) -> jax.Array:
    """Random contrast, brightness, bias field and noise on a z-scored image; channels share the field."""
    contrast, shift, field, level, noise = jax.random.split(key, 5)
    image = image * jax.random.uniform(contrast, minval=0.8, maxval=1.25)
    image = image + jax.random.uniform(shift, minval=-0.2, maxval=0.2)
    sides = (3,) * axes + (1,) * (image.ndim - axes)
    coarse = jax.random.uniform(field, sides, minval=-0.15, maxval=0.15)
    image = image * jnp.exp(jax.image.resize(coarse, image.shape, "linear"))
    sigma = jax.random.uniform(level, minval=0.0, maxval=0.1)
    return image + sigma * jax.random.normal(noise, image.shape)
