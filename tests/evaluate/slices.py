"""A small data set of slices, written by hand: balls as tumours inside a larger ball as liver."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlseg_jax.datasets.spec import DatasetSpec, PlaneGrid
from tlseg_jax.preprocess.store.slice_store import SliceStore, write_slices
from tlseg_jax.runtime.files import write_json

SHAPE = (9, 32, 24)
SPACING = (1.5, 1.25, 5.0)
SPEC = DatasetSpec("tiny2d", ("liver", "tumour"), PlaneGrid("CT", SHAPE[1:]), "tiny2d", ((1, 2), (2,)), exclusive=False)
Drawer = Callable[[int], tuple[NDArray[Any], NDArray[np.uint8]]]


def ball(centre: Sequence[float], radius: float, shape: Sequence[int] = SHAPE) -> NDArray[np.bool_]:
    """A ball of voxels (planes, x, y)."""
    at = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    return ((at - np.asarray(centre)) ** 2).sum(-1) <= radius**2


def draw(seed: int) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """Image (planes, x, y) and bits: a liver, and in it two tumours that are darker."""
    rng = np.random.default_rng(seed)
    liver = np.zeros(SHAPE, np.bool_)
    liver[:, 3:29, 3:21] = True
    tumour = ball((2, 10, 8), 2.3) | ball((6, 20 + rng.integers(-1, 2), 14), 2.3)
    image = rng.normal(0, 0.05, SHAPE) + 0.5 * liver - 1.0 * tumour
    return image, (liver + 2 * tumour).astype(np.uint8)


def write_slice_store(
    folder: Path,
    train: int = 2,
    test: int = 2,
    planes: Sequence[int] | None = None,
    samples: Sequence[int] | None = None,
    drawer: Drawer = draw,
    spec: Mapping[str, Any] | None = None,
) -> SliceStore:
    """A store with volumes vol-0.. to train and then to test.

    Args:
      folder: the data set's folder.
      train: how many volumes.
      test: how many volumes.
      planes: z of the stored planes; all from 0 by default.
      samples: positions of the samples; all planes by default.
      drawer: seed -> image and bits.
      spec: fields of the spec to change.
    """
    records = {}
    for i in range(train + test):
        image, bits = drawer(i)
        write_slices(folder / "subjects" / f"vol-{i}.zarr", image, bits)
        chosen = list(range(len(image))) if samples is None else list(samples)
        records[f"vol-{i}"] = {
            "split": "train" if i < train else "test",
            "person": f"person-{i}",
            "order": i,
            "shape": list(image.shape),
            "affine": np.diag([*SPACING, 1]).tolist(),
            "scan_shape": [image.shape[1], image.shape[2], image.shape[0]],
            "scan_affine": np.diag([*SPACING, 1]).tolist(),
            "planes": list(range(len(image))) if planes is None else list(planes),
            "samples": chosen,
            "bits": [int(np.bitwise_or.reduce(bits[p], axis=None)) for p in chosen],
            "fingerprint": f"f{i}",
            "image_sha256": f"sha{i}",
        }
    manifest = {
        "format": 1,
        "kind": "slices",
        "spec": SPEC.to_dict() | dict(spec or {}),
        "parameters": {},
        "subjects": records,
    }
    write_json(folder / "manifest.json", manifest)
    return SliceStore(folder)
