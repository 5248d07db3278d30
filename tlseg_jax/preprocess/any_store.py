"""A prepared data set of either kind, by what its manifest says."""

import json
from pathlib import Path

from tlseg_jax.preprocess.slice_store import SliceStore
from tlseg_jax.preprocess.store import Store

AnyStore = Store | SliceStore
"""A prepared data set of volumes or of slices."""


def open_any_store(folder: Path) -> AnyStore:
    """Open a data set's folder.

    Raises:
      InputError: there is no manifest, or not one of ours.
    """
    try:
        kind = json.loads((folder / "manifest.json").read_text(encoding="utf-8")).get("kind")
    except (OSError, ValueError, AttributeError):
        kind = None  # `Store` says what is wrong with it
    return SliceStore(folder) if kind == SliceStore.kind else Store(folder)
