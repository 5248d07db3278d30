"""A prepared data set of either kind, by what its manifest says."""

import json
from pathlib import Path

from tlseg_jax.preprocess.store.slice_store import SliceStore
from tlseg_jax.preprocess.store.store import Store
from tlseg_jax.remote.folder import Folder
from tlseg_jax.remote.held import bring

AnyStore = Store | SliceStore
"""A prepared data set of volumes or of slices."""


def open_any_store(folder: Folder) -> AnyStore:
    """Open a data set's folder, here or in a bucket.

    Raises:
      InputError: there is no manifest, or not one of ours; or there is no way to the bucket.
    """
    if isinstance(folder, Path):
        bring(folder)
    try:
        kind = json.loads((folder / "manifest.json").read_text(encoding="utf-8")).get("kind")
    except (OSError, ValueError, AttributeError):
        kind = None  # `Store` says what is wrong with it
    return SliceStore(folder) if kind == SliceStore.kind else Store(folder)
