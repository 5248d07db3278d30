"""MeshNet as brainchop distributes it (a Keras model for TensorFlow.js), in PyTorch."""

import itertools
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.measure import cores
from tlseg_jax.geometry import Affine
from tlseg_jax.runtime.errors import InputError

AXES = "LIA"
"""How it wants a head to lie, at 1 mm."""

BRIGHT = 98
"""Percentile of a head's grey values that becomes 1."""

MARGIN = 8
"""Voxels that are kept around the head."""


class MeshNet:
    """A trained MeshNet: dilated convolutions over the whole head, one class a voxel."""

    def __init__(self, folder: Path) -> None:
        """Read model.json, model.bin and the names of the classes in colormap.json.

        Raises:
          InputError: a file is missing, or a layer is not one that this has.
        """
        try:
            model = json.loads((folder / "model.json").read_text("utf-8"))
            values = np.fromfile(folder / "model.bin", "<f4")
            self.classes: list[str] = json.loads((folder / "colormap.json").read_text("utf-8"))["labels"]
        except (OSError, ValueError, KeyError) as e:
            raise InputError(
                f"{folder} holds no MeshNet of brainchop's ({e}): give the folder of its model.json."
            ) from e
        torch.set_num_threads(cores())
        sizes = [int(np.prod(w["shape"])) for w in model["weightsManifest"][0]["weights"]]
        parts = np.split(values, np.cumsum(sizes)[:-1])
        weights = iter(
            p.reshape(w["shape"]) for p, w in zip(parts, model["weightsManifest"][0]["weights"], strict=True)
        )
        layers = model["modelTopology"]["model_config"]["config"]["layers"]
        self.network = nn.Sequential(*itertools.chain.from_iterable(_layer(y, weights, folder) for y in layers)).eval()

    def segment(self, image: NDArray[np.float32], affine: Affine) -> NDArray[np.uint8]:
        """The classes of a scan, in its own axes.

        Args:
          image: (x, y, z) grey values, 0 outside the head where it is skull-stripped; voxels of about 1 mm.
          affine: (4, 4) voxel -> RAS mm.
        """
        there = nib.orientations.ornt_transform(
            nib.orientations.io_orientation(affine), nib.orientations.axcodes2ornt(AXES)
        )
        back = nib.orientations.ornt_transform(
            nib.orientations.axcodes2ornt(AXES), nib.orientations.io_orientation(affine)
        )
        turned = np.asarray(nib.orientations.apply_orientation(image, there), np.float32)
        head = turned > 0.05 * np.percentile(turned[turned > 0], BRIGHT)
        box = tuple(slice(max(int(w.min()) - MARGIN, 0), int(w.max()) + 1 + MARGIN) for w in np.nonzero(head))
        part = np.clip(turned[box] / np.percentile(turned[box][turned[box] > 0], BRIGHT), 0, 1)
        with torch.inference_mode():
            found = self.network(torch.from_numpy(np.ascontiguousarray(part))[None, None]).argmax(1)[0]
        out = np.zeros(turned.shape, np.uint8)
        out[box] = found.numpy()
        return np.asarray(nib.orientations.apply_orientation(out, back), np.uint8)


def _layer(layer: dict[str, Any], weights: Any, folder: Path) -> list[nn.Module]:
    kind, c = layer["class_name"], layer["config"]
    if kind == "InputLayer":
        return []
    if kind == "Activation" and c["activation"] == "elu":
        return [nn.ELU(inplace=True)]
    if kind != "Conv3D" or c["padding"] != "same" or c["activation"] != "linear":
        raise InputError(f"{folder / 'model.json'} has a layer {kind} that no MeshNet has: give another model.")
    kernel, bias = next(weights), next(weights)
    side, channels, features = kernel.shape[2:]
    conv = nn.Conv3d(channels, features, side, padding="same", dilation=tuple(c["dilation_rate"]))
    filters = torch.from_numpy(np.ascontiguousarray(kernel.transpose(4, 3, 0, 1, 2)))
    conv.load_state_dict({"weight": filters, "bias": torch.from_numpy(bias.copy())})
    return [conv]
