"""From a volume to a probability for every voxel: one fixed patch, or tiles over the whole volume.

The network is a plain function, so nothing here depends on how it was built or trained. One that adapts to each scan
may see it in many calls: tiles of a volume, slices of a stack.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float, Float32
from numpy.typing import NDArray

from tlseg_jax.datasets.spec import DatasetSpec, Shape3
from tlseg_jax.geometry import Box, crop_or_pad, paste
from tlseg_jax.runtime.errors import InputError

Predictor = Callable[[Float32[np.ndarray, "batch x y z"]], Float32[np.ndarray, "batch x y z structures"]]
"""Normalised patches -> probabilities of the structures."""

Tiles = Literal["gaussian", "paper"]
"""How a data set without a fixed patch is tiled: overlapping and blended, or side by side as in the paper."""

THRESHOLD = 0.5
"""A voxel belongs to a structure above this probability, where there is one or they do not exclude each other."""

AnyPredictor = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""(batch, *sides) of a 3D network or (batch, x, y, channels) of a 2D one -> (batch, *sides, structures)."""


@dataclasses.dataclass(frozen=True, eq=False)
class AdaptingPredictor:
    """A predictor that normalises by statistics of the scan that it sees.

    Attributes:
      see: (rows, weights) -> their probabilities, by the rows' own statistics, and these.
      fixed: [statistics], [weight of each] -> the predictor by those of all of them together.
      again: whether a scan of one call is asked a second time too, by `fixed`, which does more than `see`.
    """

    see: Callable[[NDArray[np.float32], NDArray[np.float32]], tuple[NDArray[np.float32], Any]]
    fixed: Callable[[list[Any], list[float]], AnyPredictor]
    again: bool = False

    def __call__(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Of rows that are the whole of a scan."""
        return self.see(rows, _weights(rows))[0]

    def over_scan(self, predict: Callable[[AnyPredictor], NDArray[np.float32]]) -> NDArray[np.float32]:
        """What `predict` gives of one scan, all of whose calls go by the statistics of the whole scan.

        They are taken in a pass of their own, in which each call goes by its own; a scan of one call needs no second.
        """
        parts: list[Any] = []
        weights: list[float] = []

        def collect(rows: NDArray[np.float32]) -> NDArray[np.float32]:
            counts = _weights(rows)
            found, own = self.see(rows, counts)
            parts.append(own)
            weights.append(float(counts.sum()))
            return found

        found = predict(collect)
        return found if len(parts) == 1 and not self.again else predict(self.fixed(parts, weights))


def _weights(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 for each row, and 0 for those at the end that only fill a batch up, which are its first row again."""
    weights = np.ones(len(rows), np.float32)
    for i in range(len(rows) - 1, 0, -1):
        if not np.array_equal(rows[i], rows[0]):
            break
        weights[i] = 0
    return weights


def predict_volume(
    image: Float[np.ndarray, "x y z"],
    spec: DatasetSpec,
    box: Box | None,
    predictor: Predictor,
    tiles: Tiles = "gaussian",
    batch: int = 2,
) -> Float32[np.ndarray, "x y z structures"]:
    """Probability of each structure in every voxel of a prepared volume.

    A spec with a fixed patch is predicted in that one box; one with patches from anywhere
    (`random_patch`, the paper's HDT-WB) in tiles of the patch size.

    Args:
      image: normalised.
      spec: the data set that the network was trained on.
      box: the fixed patch; not used for tiles.
      tiles: "gaussian" overlaps by half and blends, "paper" sets tiles side by side.
      batch: tiles a call.

    Returns:
      0 to 1, zero outside the box.

    Raises:
      InputError: there is no box where one is needed, it misses the volume, an unknown kind of
        tiles, or the network gives values that are not finite.
    """
    if isinstance(predictor, AdaptingPredictor):
        return predictor.over_scan(lambda p: predict_volume(image, spec, box, p, tiles, batch))
    if tiles not in get_args(Tiles):
        raise InputError(f"There are no tiles called '{tiles}': choose {' or '.join(get_args(Tiles))}.")
    if spec.volumes.random_patch:
        overlap = 0.0 if tiles == "paper" else 0.5
        return predict_tiles(image, spec.volumes.patch_size, predictor, overlap=overlap, batch=batch)
    if box is None:
        raise InputError(
            f"The data set {spec.name} is predicted in one fixed patch and there is none: "
            "train on a store that has training subjects, or choose a spec with random_patch."
        )
    return predict_box(image, box, predictor)


def predict_box(
    image: Float[np.ndarray, "x y z"], box: Box, predictor: Predictor
) -> Float32[np.ndarray, "x y z structures"]:
    """Probabilities in one box; zero outside it.

    The network is called once with (1, *box.size); where the box reaches outside the image, the border is repeated.

    Raises:
      InputError: the box lies wholly outside the volume, or the values are not finite.
    """
    if any(a >= n or b <= 0 for a, b, n in zip(box.start, box.stop, image.shape, strict=True)):
        raise InputError(
            f"The patch from voxel {box.start} to {box.stop} misses the volume of {image.shape} voxels: "
            "the network was trained on data of another field of view; prepare this data with the same spec."
        )
    patch = crop_or_pad(image, box).astype(np.float32)
    found = _call(predictor, patch[None])[0]
    out = np.zeros((*image.shape, found.shape[-1]), np.float32)
    paste(found, box, out)
    return out


def predict_tiles(
    image: Float[np.ndarray, "x y z"], tile: Shape3, predictor: Predictor, *, overlap: float = 0.5, batch: int = 2
) -> Float32[np.ndarray, "x y z structures"]:
    """Probabilities over the whole volume from tiles.

    With `overlap` 0 the tiles stand side by side from voxel 0, as in the paper (section 4.1: no overlap
    when predicting); a last tile that reaches past the end sees the border repeated, and no voxel is
    predicted twice. With an overlap the first and last tiles are flush with the volume's ends and the
    others evenly spaced, at most `tile * (1 - overlap)` apart. A side shorter than the tile gets one
    tile, centred. Where tiles overlap their middles count most, as the network sees context on all sides there: the
    weights are Gaussian, with a standard deviation of an eighth of the side.

    The tile positions are a product of three lists, so the blending weights are too: they are
    normalised by axis beforehand, and one float32 volume (the result) is all that is accumulated.

    Args:
      image: tiles of it are converted one batch at a time.
      tile: voxels of a tile.
      predictor: the network, always called with (batch, *tile): the last batch is filled up with
        its own first tile, so that a compiled network is compiled once.
      overlap: share of a tile's side, 0 or more and below 1.
      batch: tiles a call.

    Raises:
      InputError: the network gives values that are not finite.
    """
    axes = [_axis_weights(_tile_starts(n, t, overlap), n, t) for n, t in zip(image.shape, tile, strict=True)]
    out: NDArray[np.float32] | None = None
    for chosen in _groups(itertools.product(*axes), batch):
        boxes = [Box((x[0], y[0], z[0]), tile) for x, y, z in chosen]
        patches = np.empty((batch, *tile), np.float32)
        for i in range(batch):
            # Filling up keeps one shape, hence one compilation.
            patches[i] = crop_or_pad(image, boxes[i]) if i < len(boxes) else patches[0]
        probability = _call(predictor, patches)
        if out is None:
            out = np.zeros((*image.shape, probability.shape[-1]), np.float32)
        for p, box, ((_, wx), (_, wy), (_, wz)) in zip(probability, boxes, chosen, strict=False):
            _add(p, box, (wx[:, None, None] * wy[:, None] * wz)[..., None], out)
    assert out is not None
    return np.clip(out, 0, 1, out=out)


def _call(predictor: Predictor, patches: NDArray[np.float32]) -> NDArray[np.float32]:
    probability = np.asarray(predictor(patches))
    if probability.ndim != patches.ndim + 1 or probability.shape[:-1] != patches.shape:
        raise ValueError(f"the predictor returned {probability.shape} for patches of {patches.shape}")
    check_probability(probability)
    return probability


def check_probability(probability: Float[np.ndarray, "..."]) -> None:
    """Check what a network gave. Raises InputError: a value is not finite."""
    if not np.isfinite(probability).all():
        raise InputError(
            "The network's output is not a number in some voxels: the training diverged or the checkpoint "
            "is damaged; choose another run, or train again with a lower learning rate."
        )


def _tile_starts(length: int, tile: int, overlap: float) -> tuple[int, ...]:
    if length <= tile:
        return (-((tile - length) // 2),)
    if overlap == 0:
        return tuple(range(0, length, tile))
    step = max(1, math.floor(tile * (1 - overlap)))
    count = math.ceil((length - tile) / step) + 1
    return tuple(round(i * (length - tile) / (count - 1)) for i in range(count))


AxisTile = tuple[int, NDArray[np.float32]]
"""Where a tile starts on one axis, and the weights (tile,) of its voxels there."""


def _axis_weights(starts: tuple[int, ...], length: int, tile: int) -> list[AxisTile]:
    """Weights that add up to 1 in each voxel of the axis, over the tiles that cover it."""
    profile = np.exp(-0.5 * ((np.arange(tile) - (tile - 1) / 2) / (tile / 8)) ** 2)
    # Padding on both sides leaves room for tiles that reach outside.
    total = np.zeros(length + 2 * tile)
    for start in starts:
        total[start + tile : start + 2 * tile] += profile
    return [(s, (profile / total[s + tile : s + 2 * tile]).astype(np.float32)) for s in starts]


def _groups(tiles: Iterator[tuple[AxisTile, ...]], size: int) -> Iterator[list[tuple[AxisTile, ...]]]:
    while group := list(itertools.islice(tiles, size)):
        yield group


def _add(probability: NDArray[np.float32], box: Box, weight: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    to, frm = [], []
    for a, b, n in zip(box.start, box.stop, out.shape[:3], strict=True):
        lo, hi = max(a, 0), min(b, n)
        to.append(slice(lo, hi))
        frm.append(slice(lo - a, hi - a))
    out[tuple(to)] += probability[tuple(frm)] * weight[tuple(frm)]
