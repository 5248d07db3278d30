"""MONAI's networks that users would pick: other architectures, for the scale only.

UNet: as its tutorials set it up, of our networks' widths. It goes down by strided convolutions and up by transposed
ones, with residual units of two convolutions and batch norm; its first level works at half resolution.
BasicUNet: as it comes, with widths of 32 to 256, five levels, two convolutions a level and instance norm.
"""

import math
from collections.abc import Callable, Mapping

import torch.nn.functional as F
from monai.networks.nets import BasicUNet, UNet
from torch import Tensor, nn

from tlseg_jax.models.unet import UNetConfig


def widths(config: UNetConfig) -> tuple[int, ...]:
    """Channels of each level, finest first."""
    return (*(w[-1] for w in config.encoder), max(config.bottleneck))


def _unet(config: UNetConfig) -> nn.Module:
    channels = widths(config)
    network: nn.Module = UNet(
        spatial_dims=config.dimensions,
        in_channels=config.channels,
        out_channels=len(config.outputs),
        channels=channels,
        strides=(2,) * (len(channels) - 1),
        num_res_units=2,
        norm="batch",
    )
    return network


def _basic_unet(config: UNetConfig) -> nn.Module:
    network: nn.Module = BasicUNet(
        spatial_dims=config.dimensions, in_channels=config.channels, out_channels=len(config.outputs)
    )
    return network


NETWORKS: Mapping[str, Callable[[UNetConfig], nn.Module]] = {"UNet": _unet, "BasicUNet": _basic_unet}


def build(config: UNetConfig, name: str) -> nn.Module:
    """A network of MONAI with the inputs and outputs of one of ours, a name of `NETWORKS`."""
    return NETWORKS[name](config).train()


def pad(config: UNetConfig, x: Tensor) -> Tensor:
    """Zeros at the far end of the last sides, up to what it can halve: it does not pad by itself."""
    divisor = math.prod((2,) * (len(widths(config)) - 1))
    missing = [-s % divisor for s in x.shape[-config.dimensions :]]
    return F.pad(x, [p for m in reversed(missing) for p in (0, m)]) if any(missing) else x
