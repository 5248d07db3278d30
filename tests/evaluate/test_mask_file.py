"""Masks in a file: the same masks come back, a damaged file is named."""

import json
from pathlib import Path

import numpy as np
import pytest

from tlseg_jax.evaluate.mask_file import load_masks, packed, save_masks, unpacked
from tlseg_jax.runtime.errors import InputError


def test_masks_of_any_shape_come_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    masks = {"a": rng.random((3, 5, 7)) < 0.3, "sub-1 b": np.zeros((4, 4, 4), bool), "c": np.ones((1, 2, 9), bool)}
    save_masks(tmp_path / "new" / "x.npz", masks)
    found = load_masks(tmp_path / "new" / "x.npz")
    assert found.keys() == masks.keys()
    for k in masks:
        np.testing.assert_array_equal(found[k], masks[k])
        np.testing.assert_array_equal(unpacked(*json.loads(json.dumps(packed(masks[k])))), masks[k])


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 but no more"])
def test_a_missing_or_damaged_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "x.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"x\.npz"):
        load_masks(path)
