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

from tlseg_jax.models.networks import NetworkConfig
from tlseg_jax.models.unet2d import SliceUNetConfig
from tlseg_jax.models.unet3d import UNet3DConfig


def widths(config: NetworkConfig) -> tuple[int, ...]:
    """Channels of each level, finest first."""
    if isinstance(config, SliceUNetConfig):
        return config.widths
    if isinstance(config, UNet3DConfig):
        return tuple(w[-1] for w in config.encoder)
    return (*(w[-1] for w in config.encoder), config.bottleneck[0])


def _inputs(config: NetworkConfig) -> int:
    return config.channels if isinstance(config, SliceUNetConfig) else 1


def _unet(config: NetworkConfig) -> nn.Module:
    channels = widths(config)
    network: nn.Module = UNet(
        spatial_dims=config.dimensions,
        in_channels=_inputs(config),
        out_channels=len(config.outputs),
        channels=channels,
        strides=(2,) * (len(channels) - 1),
        num_res_units=2,
        norm="batch",
    )
    return network


def _basic_unet(config: NetworkConfig) -> nn.Module:
    network: nn.Module = BasicUNet(
        spatial_dims=config.dimensions, in_channels=_inputs(config), out_channels=len(config.outputs)
    )
    return network


NETWORKS: Mapping[str, Callable[[NetworkConfig], nn.Module]] = {"UNet": _unet, "BasicUNet": _basic_unet}


def build(config: NetworkConfig, name: str) -> nn.Module:
    """A network of MONAI with the inputs and outputs of one of ours, a name of `NETWORKS`."""
    return NETWORKS[name](config).train()


def pad(config: NetworkConfig, x: Tensor) -> Tensor:
    """Zeros at the far end of the last sides, up to what it can halve: it does not pad by itself."""
    divisor = math.prod((2,) * (len(widths(config)) - 1))
    missing = [-s % divisor for s in x.shape[-config.dimensions :]]
    return F.pad(x, [p for m in reversed(missing) for p in (0, m)]) if any(missing) else x
