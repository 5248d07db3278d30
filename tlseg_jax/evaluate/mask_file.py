"""Predicted masks of a test set in one small file, eight voxels a bit-packed byte: for figures and viewers."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlseg_jax.evaluate.metrics import Mask
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import replacing


def save_masks(path: Path, masks: Mapping[str, Mask]) -> None:
    """Write masks (x, y, z) by subject, whole or not at all; the folder is made where it is missing."""
    arrays: dict[str, NDArray[Any]] = {}
    for subject, mask in masks.items():
        arrays[f"shape:{subject}"] = np.array(mask.shape, np.int32)
        arrays[f"bits:{subject}"] = np.packbits(mask)
    held = io.BytesIO()
    np.savez_compressed(held, **arrays)  # type: ignore[arg-type]
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, "wb") as f:
        f.write(held.getvalue())


def load_masks(path: Path) -> dict[str, Mask]:
    """Subject -> mask (x, y, z) of a file of `save_masks`.

    Raises:
      InputError: it is missing or damaged.
    """
    try:
        with path.open("rb") as f, np.load(f, allow_pickle=False) as held:
            subjects = [k.removeprefix("shape:") for k in held.files if k.startswith("shape:")]
            out = {}
            for s in subjects:
                shape = held[f"shape:{s}"]
                bits = np.unpackbits(held[f"bits:{s}"], count=int(np.prod(shape)))
                out[s] = bits.reshape(shape).astype(np.bool_)
            return out
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: run the sweep again, which scores what is missing.") from None
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as e:
        raise InputError(f"{path} cannot be read ({e}): remove it and run the sweep again.") from None
