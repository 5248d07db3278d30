"""MONAI's networks that users would pick: other architectures, for the scale only.

UNet: as its tutorials set it up. It goes down by strided convolutions and up by transposed ones, with residual units of
two convolutions and batch norm; its first level works at half resolution.
BasicUNet: as it comes, with widths of 32 to 256, five levels, two convolutions a level and instance norm.
SegResNet and DynUNet: as they come, for whole trainings (`trained.py`).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from monai.networks.nets import BasicUNet, DynUNet, SegResNet, UNet
from torch import Tensor, nn

from benchmarks.peers import torch_networks
from tlseg_jax.models.unet import UNetConfig

FORMS: Mapping[str, Callable[..., nn.Module]] = {
    "BasicUNet": lambda widths, **sizes: BasicUNet(**sizes),
    "UNet": lambda widths, **sizes: UNet(
        **sizes, channels=widths, strides=(2,) * (len(widths) - 1), num_res_units=2, norm="batch"
    ),
    "SegResNet": lambda widths, **sizes: SegResNet(**sizes, init_filters=widths[0]),
    "DynUNet": lambda widths, **sizes: DynUNet(
        **sizes,
        kernel_size=(3,) * len(widths),
        strides=(1, *(2,) * (len(widths) - 1)),
        upsample_kernel_size=(2,) * (len(widths) - 1),
        filters=widths,
    ),
}
"""Name -> (widths of the levels, finest first, and `make`'s sizes) -> network."""

NETWORKS = ("UNet", "BasicUNet")
"""Those whose step is compared with ours."""


def widths(config: UNetConfig) -> tuple[int, ...]:
    """Channels of each level, finest first."""
    return (*(w[-1] for w in config.encoder), max(config.bottleneck))


def make(name: str, widths: Sequence[int], dimensions: int, channels: int, outputs: int) -> nn.Module:
    """A network of `FORMS`, in training mode."""
    sizes: dict[str, Any] = {"spatial_dims": dimensions, "in_channels": channels, "out_channels": outputs}
    return FORMS[name](tuple(widths), **sizes).train()


def build(config: UNetConfig, name: str) -> nn.Module:
    """A network of MONAI with the inputs and outputs of one of ours, a name of `NETWORKS`."""
    return make(name, widths(config), config.dimensions, config.channels, len(config.outputs))


def pad(config: UNetConfig, x: Tensor) -> Tensor:
    """Zeros at the far end of the last sides, up to what it can halve: it does not pad by itself."""
    return torch_networks.pad(x, math.prod((2,) * (len(widths(config)) - 1)), config.dimensions)
