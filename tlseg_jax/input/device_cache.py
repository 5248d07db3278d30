"""A prepared data set held on the device, and its batches cut there: what reaches a step is where its samples are.

    cache = cache_patches(store, subjects, box)
    batch = cache.gather(cache.arrays, picks)      # inside the jitted step; picks: of make_batches(..., read=False)

The arrays are an argument of the step and not a constant in it, which the compiler would copy and fold.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from tlseg_jax.datasets.spec import Shape3
from tlseg_jax.geometry import Box
from tlseg_jax.runtime.errors import InputError

if TYPE_CHECKING:  # a machine that only measures steps may have no grain
    from tlseg_jax.input.slices import Regions
    from tlseg_jax.input.synthesis.draw import Synthesis
    from tlseg_jax.input.synthesis.maps import Maps
    from tlseg_jax.input.synthesis.mixing import Mixed
    from tlseg_jax.preprocess.store.any_store import AnyStore
    from tlseg_jax.preprocess.store.slice_store import SliceStore
    from tlseg_jax.preprocess.store.store import Store

Arrays = dict[str, jax.Array]

IMAGE_AND_LABEL_BYTES = 3
"""Of a voxel: float16 and uint8."""


@dataclasses.dataclass(frozen=True, eq=False)
class DeviceCache:
    """A data set on the device: its samples, or their features (`feature_cache`).

    Attributes:
      arrays: float16 images, uint8 labels and, where the loss needs them, bool regions; or features in place of images.
      gather: (arrays, picks, seed, step, first=0) -> the batch that the streamed run would have read, or its part from
        the sample `first` on; pure, to be traced, and equal for caches that gather alike.
    """

    arrays: dict[str, Any]
    gather: Callable[..., dict[str, Any]]

    @property
    def nbytes(self) -> int:
        """Bytes on the device."""
        return sum(int(a.nbytes) for a in jax.tree.leaves(self.arrays))


def cache_patches(
    store: "Store",
    subjects: Sequence[str],
    box: Box | None,
    room: int,
    maps: "Maps | None" = None,
    mixed: "Mixed | None" = None,
) -> DeviceCache:
    """Patches of volumes: the fixed box of each, or, where patches are drawn, each whole volume.

    Whole volumes are continued to the largest one's shape, and at least to the patch's.

    Args:
      subjects: who takes part, in the order that "index" counts.
      box: the patch; None where it is drawn.
      room: bytes that the device has for it.
      maps: those of the store, where it holds no scans.
      mixed: what takes the place of some samples, whose maps are held too.

    Returns:
      A cache whose picks are {"index": (batch,) int32, "start": (batch, 3) int32} and whose batches are
      {"image": (batch, x, y, z) float16, "label": (batch, x, y, z) uint8} and more as `make_batches` has it.

    Raises:
      InputError: the device has no room for it, or an array is damaged.
    """
    size = box.size if box else store.spec.volumes.patch_size
    boxes = [box or _whole(store.grid(s).shape, size) for s in subjects]
    shape: Shape3 = tuple(max(b.size[i] for b in boxes) for i in range(3))  # type: ignore[assignment]
    check_room(store, len(subjects), patch_bytes(boxes, maps, mixed), room)
    kind, name, read = (np.uint8, "classes", maps.classes) if maps else (np.float16, "image", store.image)
    seen = np.zeros((len(subjects), *(maps.map_box(Box((0, 0, 0), shape)).size if maps else shape)), kind)
    labels = np.zeros((len(subjects), *shape), np.uint8)
    for i, (s, b) in enumerate(zip(subjects, boxes, strict=True)):
        for all_of, part in ((seen, read(s, b)), (labels, store.label(s, b))):
            x, y, z = part.shape
            all_of[i, :x, :y, :z] = part
    first = jnp.asarray(np.array([b.start for b in boxes], np.int32))
    arrays = {name: jax.device_put(seen), "label": jax.device_put(labels), "first": first}
    if maps:
        arrays["shares"] = jnp.asarray(np.stack([maps.shares(s) for s in subjects]))
    if store.partial:
        arrays["marked"] = jnp.asarray(np.stack([store.marks(s) for s in subjects]))
    if mixed:
        found = [mixed.sample(i, drawn=True) for i in range(len(mixed.subjects))]
        arrays |= {f"map_{k}": jax.device_put(np.stack([f[k] for f in found])) for k in ("classes", "shares")}
    return DeviceCache(arrays, _GatherPatches(size, maps.synthesis if maps else None))


def patch_bytes(boxes: Sequence[Box], maps: "Maps | None" = None, mixed: "Mixed | None" = None) -> int:
    """What so many patches take, each in an array of the largest one's shape, and the maps of `mixed`."""
    shape = tuple(max(b.size[i] for b in boxes) for i in range(3))
    each = math.prod(shape) * IMAGE_AND_LABEL_BYTES
    if maps:
        each = math.prod(shape) + math.prod(maps.map_box(Box((0, 0, 0), shape)).size)  # type: ignore[arg-type]
    return len(boxes) * each + (mixed.nbytes if mixed else 0)


@dataclasses.dataclass(frozen=True)
class _GatherPatches:
    size: Shape3
    synthesis: "Synthesis | None" = None

    def __call__(self, arrays: Arrays, picks: Arrays, seed: Any = 0, step: Any = 0, first: Any = 0) -> Arrays:
        del seed, step, first
        start = picks["start"] - arrays["first"][picks["index"]]
        batch = {"label": _cut(arrays["label"], picks["index"], start, self.size)}
        if self.synthesis:
            at, sides = start * jnp.asarray(self.synthesis.factor), self.synthesis.map_sides
            batch["classes"] = _cut(arrays["classes"], picks["index"], at, sides)
        else:
            batch["image"] = _cut(arrays["image"], picks["index"], start, self.size)
        if "map_classes" in arrays:
            batch |= {k: arrays[f"map_{k}"][picks["map"]] for k in ("classes", "shares")} | {"drawn": picks["drawn"]}
        return batch | {k: arrays[k][picks["index"]] for k in ("marked", "shares") if k in arrays}


def cache_slices(
    store: "SliceStore", subjects: Sequence[str], channels: int, regions: "Regions | None", room: int
) -> DeviceCache:
    """Slices with their neighbours, labels and, where there are any, regions.

    Args:
      subjects: whose slices take part, in the order that "sample" counts.
      channels: slices a sample: itself and its neighbours.
      regions: for a loss that is restricted to a region.
      room: bytes that the device has for it.

    Returns:
      A cache whose picks are {"sample": (batch,) int32} and whose batches are {"image": (batch, x, y, channels)
      float16, "label": (batch, x, y) uint8 and with regions "region": (batch, x, y) bool}.

    Raises:
      InputError: the device has no room for it, or an array is damaged.
    """
    pixels = len(store.samples(subjects)) * math.prod(store.spec.planes.pixels)
    check_room(store, len(subjects), pixels * (2 * channels + 1 + (regions is not None)), room)
    image = np.concatenate([store.volume_image(s, channels) for s in subjects])
    return DeviceCache({"image": jax.device_put(image)} | slice_labels(store, subjects, regions), _gather_slices)


def slice_labels(store: "SliceStore", subjects: Sequence[str], regions: "Regions | None") -> Arrays:
    """What a loss needs of slices on the device: labels, which structures they mark, and regions."""
    arrays: dict[str, NDArray[Any]] = {"label": np.concatenate([store.codes(s) for s in subjects])}
    if store.partial:
        arrays["marked"] = np.concatenate([[store.marks(s)] * len(store.samples([s])) for s in subjects])
    if regions is not None:
        arrays["region"] = np.concatenate([regions[s] for s in subjects])
    return jax.device_put(arrays)  # type: ignore[no-any-return]


def _gather_slices(arrays: Arrays, picks: Arrays, seed: Any = 0, step: Any = 0, first: Any = 0) -> Arrays:
    del seed, step, first
    return {k: v[picks["sample"]] for k, v in arrays.items()}


def _whole(shape: Shape3, size: Shape3) -> Box:
    """The box of a whole volume, with what a patch that is larger than it reaches outside (see `random_box`)."""
    start = [min(0, (n - s) // 2) for n, s in zip(shape, size, strict=True)]
    return Box((start[0], start[1], start[2]), tuple(map(max, shape, size)))  # type: ignore[arg-type]


def _cut(volumes: jax.Array, index: jax.Array, start: jax.Array, size: Shape3) -> jax.Array:
    """(batch, *size): a box of each chosen volume; one plain copy a sample, where a gather would go voxel by voxel."""
    parts = [
        jax.lax.dynamic_slice(volumes, (index[i], *start[i]), (1, *size))  # type: ignore[arg-type]
        for i in range(index.shape[0])
    ]
    return jnp.concatenate(parts)


def check_room(
    store: "AnyStore", scans: int, wanted: int, room: int, cache: str = "device", instead: str = "`cache=none`"
) -> None:
    """Raise InputError where the device has no room for what a cache would hold, both in bytes."""
    if wanted > room:
        raise InputError(
            f"`cache={cache}` would hold {wanted / 1e9:.3g} GB of {scans} scans of {store.where} on the device, which "
            f"has {max(room, 0) / 1e9:.3g} GB for them: give {instead}, or train on fewer scans (`n`)."
        )
