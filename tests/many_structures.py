"""A tiny prepared data set whose blobs have a left and a right half."""

from pathlib import Path
from typing import Any

import numpy as np

from tests.conftest import SIDE, blob, write_store
from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.preprocess.codes import UNMARKED
from tlseg_jax.preprocess.store.store import Store, write_subject
from tlseg_jax.runtime.files import write_json

HALVES = ("half_left", "half_right")


def write_halves(
    folder: Path, marked: dict[str, list[str]] | None = None, unlooked: bool = False, **given: Any
) -> Store:
    """A store of blobs cut in two at their middle; `marked` names the halves that a subject's map marks.

    The image is brighter on the left, by which the halves can be told.
    """
    store = write_store(folder, **given)
    manifest, wanted = store.manifest, {"structures": list(HALVES), "label_values": [[1], [2]]}
    manifest["spec"] |= wanted | ({"unmarked_value": 9} if unlooked else {})
    x = np.arange(SIDE)[:, None, None]
    for subject, record in manifest["subjects"].items():
        image, label = blob(int(subject.removeprefix("sub-")))
        codes = np.where(x < SIDE // 2, 1, 2).astype(np.uint8) * label
        if unlooked:
            codes[:, :, : SIDE // 4] = UNMARKED
        write_subject(folder / "subjects" / f"{subject}.zarr", image + (x < SIDE // 2), codes)
        record["label_ml"] = {s: float((codes == i + 1).sum()) / 1000 for i, s in enumerate(HALVES)}
        if marked and subject in marked:
            record["marked"] = marked[subject]
    write_json(folder / "manifest.json", manifest)
    return Store(folder)


def lateral(spec: DatasetSpec, **changes: Any) -> DatasetSpec:
    """A spec that shows the two halves."""
    return spec.changed(structures=HALVES, label_values=((1,), (2,)), **changes)
