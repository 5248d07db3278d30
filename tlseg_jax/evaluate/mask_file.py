"""Predicted masks made small, eight voxels a byte: one in memory, and those of a test set in a file for figures."""

import base64
import io
import math
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlseg_jax.evaluate.metrics import Mask
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import replacing


def packed(mask: Mask) -> tuple[Sequence[int], str]:
    """A mask as plain values that JSON can hold: its shape, and its bits compressed, as text."""
    return mask.shape, base64.b64encode(zlib.compress(np.packbits(mask).tobytes(), 1)).decode("ascii")


def unpacked(shape: Sequence[int], text: str) -> Mask:
    """The inverse of `packed`."""
    bits = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)
    return np.unpackbits(bits, count=math.prod(shape)).reshape(shape).astype(np.bool_)


def save_masks(path: Path, masks: Mapping[str, Mask]) -> None:
    """Write masks (x, y, z) by subject, whole or not at all; the folder is made where it is missing."""
    arrays: dict[str, NDArray[Any]] = {}
    for subject, mask in masks.items():
        arrays[f"shape:{subject}"] = np.array(mask.shape, np.int32)
        arrays[f"bits:{subject}"] = np.packbits(mask)
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, "wb") as f:
        f.write(file.getvalue())


def load_masks(path: Path) -> dict[str, Mask]:
    """Subject -> mask (x, y, z) of a file of `save_masks`.

    Raises:
      InputError: it is missing or damaged.
    """
    try:
        with path.open("rb") as f, np.load(f, allow_pickle=False) as file:
            subjects = [k.removeprefix("shape:") for k in file.files if k.startswith("shape:")]
            out = {}
            for s in subjects:
                shape = file[f"shape:{s}"]
                bits = np.unpackbits(file[f"bits:{s}"], count=int(np.prod(shape)))
                out[s] = bits.reshape(shape).astype(np.bool_)
            return out
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: run the sweep again, which scores what is missing.") from None
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as e:
        raise InputError(f"{path} cannot be read ({e}): remove it and run the sweep again.") from None
