"""MeshNet read from brainchop's files, in any orientation, and its classes without a side taken apart."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

pytest.importorskip("torch")

from benchmarks.peers.meshnet import BRIGHT, MeshNet  # after the check for torch
from benchmarks.zero_labels import on_side
from tlseg_jax.runtime.errors import InputError


def write_model(folder: Path, kernels: list[NDArray[Any]], biases: list[NDArray[Any]], dilations: list[int]) -> None:
    folder.mkdir()
    layers: list[dict[str, Any]] = [{"class_name": "InputLayer", "config": {}}]
    weights = []
    for i, (k, b, d) in enumerate(zip(kernels, biases, dilations, strict=True)):
        conv = {"padding": "same", "activation": "linear", "dilation_rate": [d] * 3}
        layers.append({"class_name": "Conv3D", "config": conv})
        if i + 1 < len(kernels):
            layers.append({"class_name": "Activation", "config": {"activation": "elu"}})
        weights += [{"shape": list(k.shape)}, {"shape": list(b.shape)}]
    model = {
        "modelTopology": {"model_config": {"config": {"layers": layers}}},
        "weightsManifest": [{"weights": weights}],
    }
    (folder / "model.json").write_text(json.dumps(model))
    (folder / "colormap.json").write_text(json.dumps({"labels": ["Unknown", "Caudate", "Putamen"]}))
    parts = [a.astype("<f4").ravel() for pair in zip(kernels, biases, strict=True) for a in pair]
    np.concatenate(parts).tofile(folder / "model.bin")


def expected(image: NDArray[Any], kernels: list[NDArray[Any]], biases: list[NDArray[Any]], dilation: int) -> Any:
    """Two layers by SciPy: a dilated 3x3x3 convolution, ELU, a 1x1x1 convolution, the largest."""
    wide = np.zeros((2 * dilation + 1,) * 3)
    hidden = []
    for c in range(kernels[0].shape[-1]):
        wide[::dilation, ::dilation, ::dilation] = kernels[0][..., 0, c]
        v = ndimage.correlate(image, wide, mode="constant") + biases[0][c]
        hidden.append(np.where(v > 0, v, np.expm1(np.minimum(v, 0))))
    return (np.stack(hidden, -1) @ kernels[1][0, 0, 0] + biases[1]).argmax(-1)


def test_a_head_that_lies_as_the_model_wants_gets_the_classes_of_the_equations(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    kernels = [rng.normal(size=(3, 3, 3, 1, 4)), rng.normal(size=(1, 1, 1, 4, 3))]
    biases = [rng.normal(size=4), rng.normal(size=3)]
    write_model(tmp_path / "model", kernels, biases, [2, 1])
    image = rng.uniform(0.2, 1.0, (12, 13, 14)).astype(np.float32) * 300  # no air around it: nothing is cut away
    lia = np.array([[-1, 0, 0, 9], [0, 0, 1, 9], [0, -1, 0, 9], [0, 0, 0, 1.0]])
    found = MeshNet(tmp_path / "model").segment(image, lia)
    grey = np.clip(image / np.percentile(image, BRIGHT), 0, 1).astype(np.float64)
    wanted = expected(grey, kernels, biases, 2)
    assert len(np.unique(wanted)) == 3
    assert (found == wanted).mean() > 0.999  # float32 may decide a tie otherwise


def test_a_turned_scan_gets_the_same_classes_in_its_own_axes(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    kernels = [rng.normal(size=(3, 3, 3, 1, 4)), rng.normal(size=(1, 1, 1, 4, 3))]
    write_model(tmp_path / "model", kernels, [rng.normal(size=4), rng.normal(size=3)], [1, 1])
    network = MeshNet(tmp_path / "model")
    image = rng.uniform(0.2, 1.0, (9, 10, 11)).astype(np.float32)
    plain = network.segment(image, np.diag([1.0, 1.0, 1.0, 1.0]))
    swapped = np.array([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    moved = network.segment(np.ascontiguousarray(image.transpose(1, 0, 2)), swapped)
    assert (moved == plain.transpose(1, 0, 2)).all()


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no MeshNet of brainchop's .*give the folder"):
        MeshNet(tmp_path)


def test_voxels_are_of_the_nearer_side() -> None:
    left, right = np.zeros((10, 4, 4), bool), np.zeros((10, 4, 4), bool)
    left[1:3], right[7:9] = True, True
    mask = np.ones((10, 4, 4), bool)
    assert on_side(mask, left, right)[:5].all() and not on_side(mask, left, right)[5:].any()
    both = on_side(mask, left, right).astype(int) + on_side(mask, right, left)
    assert (both == 1).all()
