"""The project's networks written as a PyTorch user would write them, with the modules' names of the flax ones."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tlseg_jax.models.networks import NetworkConfig
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.models.unet2d import SliceUNetConfig
from tlseg_jax.models.unet3d import UNet3DConfig


class Block(nn.Module):
    """Convolution, batch norm, ReLU, once for each width; the last ReLU is the caller's."""

    def __init__(self, channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.count = len(widths)
        for i, width in enumerate(widths):
            self.add_module(f"conv_{i}", nn.Conv3d(channels, width, 3, padding=1, bias=False))
            self.add_module(f"bn_{i}", nn.BatchNorm3d(width))
            channels = width

    def forward(self, x: Tensor) -> Tensor:
        for i in range(self.count):
            x = self.get_submodule(f"bn_{i}")(self.get_submodule(f"conv_{i}")(x))
            if i + 1 < self.count:
                x = F.relu(x)
        return x


def _pad(x: Tensor, divisor: int) -> Tensor:
    """Zeros at the far end of each side, up to a multiple of `divisor`."""
    missing = [-s % divisor for s in x.shape[2:]]
    return F.pad(x, [p for m in reversed(missing) for p in (0, m)]) if any(missing) else x


def _relaid(y: Tensor, like: Tensor) -> Tensor:
    last = torch.channels_last_3d
    return y.contiguous(memory_format=last) if like.is_contiguous(memory_format=last) else y


def _crop(x: Tensor, sides: tuple[int, ...]) -> Tensor:
    for axis, side in enumerate(sides, 2):
        x = x.narrow(axis, 0, side)
    return x


class SwitchUNet(nn.Module):
    """`switch32`, `switch8x2`: (batch, 1, depth, height, width) -> (batch, outputs, ...) logits.

    `max_unpool3d` never answers in channels-last. Left so, what follows mixes layouts: on a CPU a step of `switch32`
    takes twice the time. With `keep_layout` its answer is put back into the layout of its input.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config, self.keep_layout = config, True
        channels, skips = 1, []
        for i, widths in enumerate(config.encoder):
            self.add_module(f"encoder_{i}", Block(channels, widths))
            channels = widths[-1]
            skips.append(channels)
        self.bottleneck = Block(channels, config.bottleneck)
        channels = config.bottleneck[-1]
        for i, widths in enumerate(config.decoder):
            if widths:
                self.add_module(f"decoder_{i}", Block(channels, widths))
                channels = widths[-1]
            skip = skips.pop()
            channels += skip if config.skip == "concatenate" else 0
        if config.final:
            self.final = Block(channels, config.final)
            channels = config.final[-1]
        self.head = nn.Conv3d(channels, len(config.outputs), 1)

    def forward(self, x: Tensor) -> Tensor:
        c, sides = self.config, x.shape[2:]
        x = _pad(x, c.divisor)
        skips = []
        for i in range(len(c.encoder)):
            x = self.get_submodule(f"encoder_{i}")(x)
            pooled, switches = F.max_pool3d(x, 2, return_indices=True)
            skips.append((F.relu(x), switches))
            x = F.relu(pooled)
        x = F.relu(self.bottleneck(x))
        for i, widths in enumerate(c.decoder):
            if widths:
                x = F.relu(self.get_submodule(f"decoder_{i}")(x))
            skip, switches = skips.pop()
            unpooled = F.max_unpool3d(x, switches, [2, 2, 2])
            x = _relaid(unpooled, x) if self.keep_layout else unpooled
            x = torch.cat([x, skip], 1) if c.skip == "concatenate" else x + skip
        if c.final:
            x = F.relu(self.final(x))
        return _crop(self.head(x), sides)


class UNet3D(nn.Module):
    """`unet3d256`: (batch, 1, depth, height, width) -> (batch, outputs, ...) logits."""

    def __init__(self, config: UNet3DConfig) -> None:
        super().__init__()
        self.config = config
        channels = 1
        for i, widths in enumerate(config.encoder[:-1]):
            self.add_module(f"encoder_{i}", Block(channels, widths))
            channels = widths[-1]
        self.bottleneck = Block(channels, config.encoder[-1])
        channels = config.encoder[-1][-1]
        for i, widths in enumerate(reversed(config.encoder[:-1])):
            self.add_module(f"up_{i}", nn.ConvTranspose3d(channels, channels, 2, stride=2))
            self.add_module(f"decoder_{i}", Block(channels + widths[-1], (widths[-1],) * 2))
            channels = widths[-1]
        self.head = nn.Conv3d(channels, len(config.outputs), 1)

    def forward(self, x: Tensor) -> Tensor:
        c, sides = self.config, x.shape[2:]
        x = _pad(x, c.divisor)
        levels, skips = len(c.encoder) - 1, []
        for i in range(levels):
            x = F.relu(self.get_submodule(f"encoder_{i}")(x))
            skips.append(x)
            x = F.max_pool3d(x, 2)
        x = F.relu(self.bottleneck(x))
        for i in range(levels):
            x = torch.cat([self.get_submodule(f"up_{i}")(x), skips.pop()], 1)
            x = F.relu(self.get_submodule(f"decoder_{i}")(x))
        return _crop(self.head(x), sides)


class ResidualBlock(nn.Module):
    """Convolution, batch norm and ReLU, twice, plus a 1x1 projection of the input."""

    def __init__(self, channels: int, features: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.short = nn.Conv2d(channels, features, 1, bias=False)
        self.conv_0, self.bn_0 = nn.Conv2d(channels, features, 3, padding=1, bias=False), nn.BatchNorm2d(features)
        self.conv_1, self.bn_1 = nn.Conv2d(features, features, 3, padding=1, bias=False), nn.BatchNorm2d(features)

    def forward(self, x: Tensor) -> Tensor:
        short = self.short(x)
        for conv, bn in ((self.conv_0, self.bn_0), (self.conv_1, self.bn_1)):
            if self.dropout:
                x = F.dropout(x, self.dropout, self.training)
            x = F.relu(bn(conv(x)))
        return x + short


class SliceUNet(nn.Module):
    """`unet2d`: (batch, channels, x, y) -> (batch, outputs, x, y) logits."""

    def __init__(self, config: SliceUNetConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.channels
        for i, width in enumerate(config.widths[:-1]):
            self.add_module(f"encoder_{i}", ResidualBlock(channels, width, 0.0))
            channels = width
        self.bottleneck = ResidualBlock(channels, config.widths[-1], 0.0)
        channels = config.widths[-1]
        for i, width in enumerate(reversed(config.widths[:-1])):
            self.add_module(f"up_{i}", nn.ConvTranspose2d(channels, width, 2, stride=2))
            self.add_module(f"decoder_{i}", ResidualBlock(2 * width, width, config.dropout))
            channels = width
        self.head = nn.Conv2d(channels, len(config.outputs), 1)

    def forward(self, x: Tensor) -> Tensor:
        c, sides = self.config, x.shape[2:]
        x = _pad(x, c.divisor)
        skips = []
        levels = len(c.widths) - 1
        for i in range(levels):
            x = self.get_submodule(f"encoder_{i}")(x)
            skips.append(x)
            x = F.max_pool2d(x, 2)
        x = self.bottleneck(x)
        for i in range(levels):
            x = torch.cat([self.get_submodule(f"up_{i}")(x), skips.pop()], 1)
            x = self.get_submodule(f"decoder_{i}")(x)
        return _crop(self.head(x), sides)


def build(config: NetworkConfig) -> nn.Module:
    """The PyTorch network of a config, with PyTorch's own start.

    Raises:
      ValueError: there is no PyTorch form of that kind of network.
    """
    forms: dict[type[Any], type[Any]] = {UNetConfig: SwitchUNet, UNet3DConfig: UNet3D, SliceUNetConfig: SliceUNet}
    if type(config) not in forms:
        raise ValueError(f"{config.name} has no PyTorch form in benchmarks/peers/torch_networks.py")
    network: nn.Module = forms[type(config)](config)
    return network
