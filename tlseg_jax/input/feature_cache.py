"""What the frozen first levels of a network give of a data set, computed once and held on the device.

    cache = cache_features(store, subjects, box, network, variables, levels, flips, room)
    batch = cache.gather(cache.arrays, picks, seed, step)   # inside the jitted step; picks: see device_cache

A step on such a batch runs the network with part="rest". It trains as the whole network does, up to rounding: the
frozen levels are the same in every step, and a patch comes in two forms at most, as it is and mirrored.

    arrays   {"features": {name: (rows, ...)}, "label": (rows, *sides) uint8} and for slices, where the loss needs them,
             "region": (rows, *sides) bool; a row is a patch, then its mirror image where the data are mirrored
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from tlseg_jax.geometry import Box
from tlseg_jax.input.augment import Augmentation, mirrors
from tlseg_jax.input.device_cache import DeviceCache, check_room, slice_labels
from tlseg_jax.models.features import Features
from tlseg_jax.models.networks import variable_shapes
from tlseg_jax.models.unet import UNetConfig

if TYPE_CHECKING:  # a machine that only measures steps may have no grain
    from tlseg_jax.input.slices import Regions
    from tlseg_jax.preprocess.store.slice_store import SliceStore
    from tlseg_jax.preprocess.store.store import Store

Rows = dict[str, Any]
Seed = int | jax.Array

SLICES = 8
"""Slices whose features are computed at once, where there are as many."""

_CACHE = ("features", "`cache=device` or none")
"""What it is called where there is no room for it, and what to take instead."""


def why_no_features(
    levels: int,
    frozen_bn: Literal["running", "batch"],
    *,
    random_patch: bool = False,
    augmentation: Augmentation = Augmentation(),  # noqa: B008 - frozen
    mirrored: bool = True,
) -> str | None:
    """Why no features can be kept, as a sentence; None where they can.

    Args:
      levels: from `frozen_levels`.
      augmentation: of the patches; to be mirrored left to right is the only change that features can be kept for.
      mirrored: whether they can for that.
    """
    if frozen_bn == "batch":
        return "Features cannot be kept, as the frozen batch norms normalise by the batch (`frozen_bn=batch`)."
    if levels == 0:
        return "Features cannot be kept, as the network's first level is trained."
    if random_patch:
        return "Features cannot be kept, as each step draws its patches at random places."
    changes = [
        k
        for k, v in dataclasses.asdict(augmentation).items()
        if v and k not in (("flip_left_right",) if mirrored else ()) + ("mirror_codes", "one_structure", "partners")
    ]
    if changes:
        what = ", ".join(c.replace("_", " ") for c in changes)
        return f"Features cannot be kept, as each step changes its patches at random ({what})."
    return None


def feature_shapes(
    network: UNetConfig, levels: int, sides: Sequence[int], rows: int = 1
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and types of the features of so many patches or slices, told before anything is computed."""
    shapes = _shapes_of_one(network, levels, tuple(sides)).items()
    return {name: jax.ShapeDtypeStruct((rows, *s.shape[1:]), s.dtype) for name, s in shapes}


@functools.cache
def _shapes_of_one(network: UNetConfig, levels: int, sides: tuple[int, ...]) -> dict[str, jax.ShapeDtypeStruct]:
    """One patch's or slice's; tracing takes a tenth of a second, and a sweep asks again and again."""
    module = network.module()
    image = jax.ShapeDtypeStruct((1, *sides, network.example().shape[-1]), jnp.float32)
    found: Any = jax.eval_shape(
        lambda v, x: module.apply(v, x, part="features", levels=levels), variable_shapes(network), image
    )
    return dict(found)


def feature_bytes(network: UNetConfig, levels: int, sides: Sequence[int], rows: int, *, region: bool = False) -> int:
    """Bytes that `rows` patches or slices take with their labels, told before anything is computed.

    Args:
      rows: how many; a patch that may be mirrored counts twice.
      region: whether each comes with a region that the loss is restricted to.
    """
    kept = sum(math.prod(s.shape) * s.dtype.itemsize for s in feature_shapes(network, levels, sides).values())
    return rows * (kept + math.prod(sides) * (1 + region))


def cache_features(
    store: "Store",
    subjects: Sequence[str],
    box: Box,
    network: UNetConfig,
    variables: Any,
    levels: int,
    augmentation: Augmentation,
    room: int,
) -> DeviceCache:
    """Features of each subject's patch and, where the data are mirrored, of its mirror image.

    Args:
      subjects: who takes part, in the order that "index" counts.
      network: the network, of the type that it trains in.
      variables: its {"params", "batch_stats"}, of which the first levels are frozen.
      levels: how many, from `frozen_levels`.
      augmentation: of the patches, of which this does the mirroring.
      room: bytes that the device has for it.

    Returns:
      A cache whose picks are {"index": (batch,) int32}, of `make_batches(..., read=False)`, and which mirrors what
      `augment_batch` mirrors at that seed and step.

    Raises:
      InputError: the device has no room for it, or an array is damaged.
    """
    forms = 2 if augmentation.flip_left_right else 1
    table = np.asarray(augmentation.mirror_codes or range(256), np.uint8)
    rows = forms * len(subjects)
    check_room(store, len(subjects), feature_bytes(network, levels, box.size, rows), room, *_CACHE)
    labels = np.zeros((rows, *box.size), np.uint8)

    def patches() -> Iterable[tuple[int, NDArray[Any]]]:
        for i, s in enumerate(subjects):
            image, label = store.image(s, box), store.label(s, box)
            labels[forms * i : forms * (i + 1)] = np.stack([label, table[label[::-1]]][:forms])
            yield forms * i, np.stack([image, image[::-1]][:forms])[..., None]

    features = _compute(network, variables, levels, box.size, rows, patches())
    arrays = {"features": features, "label": jax.device_put(labels)}
    if store.partial:
        marks = np.stack([store.marks(s) for s in subjects])
        mirrored = marks[:, list(augmentation.partners)] if augmentation.partners else marks
        arrays["marked"] = jnp.asarray(np.stack([marks, mirrored][:forms], 1).reshape(rows, -1))
    return DeviceCache(arrays, _gather_mirrored if forms == 2 else _gather)


def cache_slice_features(
    store: "SliceStore",
    subjects: Sequence[str],
    network: UNetConfig,
    variables: Any,
    levels: int,
    regions: "Regions | None",
    room: int,
) -> DeviceCache:
    """Features of every slice; slices are not augmented.

    Args:
      subjects: whose slices take part, in the order that "sample" counts.
      regions: for a loss that is restricted to a region. For the others see `cache_features`.

    Returns:
      A cache whose picks are {"sample": (batch,) int32}, of `make_slice_batches(..., read=False)`.

    Raises:
      InputError: the device has no room for it, or an array is damaged.
    """
    pixels, channels = store.spec.planes.pixels, network.example().shape[-1]
    count = len(store.samples(subjects))
    wanted = feature_bytes(network, levels, pixels, count, region=regions is not None)
    check_room(store, len(subjects), wanted, room, *_CACHE)

    def slices() -> Iterable[tuple[int, NDArray[Any]]]:
        images = np.concatenate([store.volume_image(s, channels) for s in subjects])
        size = min(SLICES, count)
        for start in range(0, count, size):
            # The last batch begins earlier instead of being smaller, which would be a program of its own.
            first = min(start, count - size)
            yield first, images[first : first + size]

    features = {"features": _compute(network, variables, levels, pixels, count, slices())}
    return DeviceCache(features | slice_labels(store, subjects, regions), _gather)


def _gather(arrays: Rows, picks: Rows, seed: Seed, step: jax.Array, first: Any = 0) -> Rows:
    del seed, step, first
    return _rows(arrays, picks["sample" if "sample" in picks else "index"])  # of slices each is a row


def _gather_mirrored(arrays: Rows, picks: Rows, seed: Seed, step: jax.Array, first: Any = 0) -> Rows:
    index = picks["index"]
    return _rows(arrays, 2 * index + mirrors(seed, step, index.shape[0], first))


@functools.cache
def _program(network: UNetConfig, levels: int) -> Callable[[Any, Any], Features]:
    """One jitted function a network, so that the next run's parameters compile nothing."""
    module = network.module()

    @jax.jit
    def features(variables: Any, image: jax.Array) -> Any:
        return module.apply(variables, image.astype(jnp.float32), part="features", levels=levels)

    return features


@functools.partial(jax.jit, donate_argnums=0)
def _put(kept: Features, found: Features, first: jax.Array) -> Features:
    return {k: jax.lax.dynamic_update_slice_in_dim(kept[k], found[k], first, 0) for k in kept}


def _compute(
    network: UNetConfig,
    variables: Any,
    levels: int,
    sides: tuple[int, ...],
    rows: int,
    images: Iterable[tuple[int, NDArray[Any]]],
) -> Features:
    """Features of all rows, for (first row, images) of some rows at a time; never twice on the device."""
    kept = {k: jnp.zeros(s.shape, s.dtype) for k, s in feature_shapes(network, levels, sides, rows).items()}
    compute = _program(network, levels)
    for first, image in images:
        kept = _put(kept, compute(variables, image), jnp.int32(first))
    return kept


def _rows(arrays: Rows, chosen: jax.Array) -> Rows:
    """The chosen rows of every array; one plain copy a row, where a gather would go value by value."""

    def take(v: jax.Array) -> jax.Array:
        return jnp.concatenate([jax.lax.dynamic_slice_in_dim(v, i, 1) for i in chosen])

    return jax.tree.map(take, arrays)  # type: ignore[no-any-return]
