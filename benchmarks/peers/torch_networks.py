"""The project's network written as a PyTorch user would write them, with the modules' names of the flax ones."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tlseg_jax.models.unet import UNetConfig


class Block(nn.Module):
    """Convolution, batch norm, ReLU, for each width; plus a 1x1 projection of the input where there are short skips."""

    def __init__(
        self, channels: int, widths: tuple[int, ...], config: UNetConfig, dropout: float = 0.0, last_relu: bool = True
    ) -> None:
        super().__init__()
        d, self.count, self.dropout, self.last_relu = config.dimensions, len(widths), dropout, last_relu
        conv, norm = getattr(nn, f"Conv{d}d"), getattr(nn, f"BatchNorm{d}d")
        self.short = conv(channels, widths[-1], 1, bias=False) if config.short_skips else None
        for i, width in enumerate(widths):
            self.add_module(f"conv_{i}", conv(channels, width, 3, padding=1, bias=False))
            self.add_module(f"bn_{i}", norm(width))
            channels = width

    def forward(self, x: Tensor) -> Tensor:
        short = None if self.short is None else self.short(x)
        for i in range(self.count):
            if self.dropout:
                x = F.dropout(x, self.dropout, self.training)
            x = self.get_submodule(f"bn_{i}")(self.get_submodule(f"conv_{i}")(x))
            if i + 1 < self.count or self.last_relu:
                x = F.relu(x)
        return x if short is None else x + short


def pad(x: Tensor, divisor: int, dimensions: int) -> Tensor:
    """Zeros at the far end of each of the last `dimensions` sides, up to a multiple of `divisor`."""
    missing = [-s % divisor for s in x.shape[-dimensions:]]
    return F.pad(x, [p for m in reversed(missing) for p in (0, m)]) if any(missing) else x


def _cells(x: Tensor, side: int) -> Tensor:
    """Each cell of `side` voxels a side as one voxel, its voxels as channels."""
    if side == 1:
        return x
    last = x.is_contiguous(memory_format=torch.channels_last if x.ndim == 4 else torch.channels_last_3d)
    batch, channels, *sides = x.shape
    n = len(sides)
    split = x.reshape(batch, channels, *(part for s in sides for part in (s // side, side)))
    order = (0, *range(3, 3 + 2 * n, 2), 1, *range(2, 2 + 2 * n, 2))
    y = split.permute(order).reshape(batch, channels * side**n, *(s // side for s in sides))
    like = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
    return y.contiguous(memory_format=like) if last else y


def _relaid(y: Tensor, like: Tensor) -> Tensor:
    last = torch.channels_last if y.ndim == 4 else torch.channels_last_3d
    return y.contiguous(memory_format=last) if like.is_contiguous(memory_format=last) else y


def _crop(x: Tensor, sides: tuple[int, ...]) -> Tensor:
    for axis, side in enumerate(sides, 2):
        x = x.narrow(axis, 0, side)
    return x


class UNet(nn.Module):
    """The network of a config, with PyTorch's own start: (batch, channels, *sides) -> (batch, outputs, *sides) logits.

    `max_unpool3d` never answers in channels-last. Left so, what follows mixes layouts: on a CPU a step of `switch32`
    takes twice the time. With `keep_layout` its answer is put back into the layout of its input.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config, self.keep_layout = config, True
        c, d, skips = config, config.dimensions, []
        channels = c.channels * c.patch**d
        self.un_pools, self.relu_last = c.up == "switch", c.up != "switch" or c.short_skips
        self.pool, self.un_pool = getattr(F, f"max_pool{d}d"), getattr(F, f"max_unpool{d}d")
        for i, widths in enumerate(c.encoder):
            self.add_module(f"encoder_{i}", Block(channels, widths, c, last_relu=self.relu_last))
            channels = widths[-1]
            skips.append(channels)
        self.bottleneck = Block(channels, c.bottleneck, c)
        channels = c.bottleneck[-1]
        for i, widths in enumerate(c.decoder):
            skip = skips.pop()
            if self.un_pools and widths:
                self.add_module(f"decoder_{i}", Block(channels, widths, c, c.dropout))
                channels = widths[-1]
            if c.up == "transposed":
                width = skip if c.narrow_up else channels
                self.add_module(f"up_{i}", getattr(nn, f"ConvTranspose{d}d")(channels, width, 2, stride=2))
                channels = width
            channels += skip if c.skip == "concatenate" else 0
            if not self.un_pools and widths:
                self.add_module(f"decoder_{i}", Block(channels, widths, c, c.dropout))
                channels = widths[-1]
        self.final = Block(channels, c.final, c, c.dropout) if c.final else None
        channels = c.final[-1] if c.final else channels
        if c.patch == 1:
            self.head = getattr(nn, f"Conv{d}d")(channels, len(c.outputs), 1)
        else:
            self.head = getattr(nn, f"ConvTranspose{d}d")(channels, len(c.outputs), c.patch, stride=c.patch)

    def forward(self, x: Tensor) -> Tensor:
        c, sides = self.config, x.shape[2:]
        x = _cells(pad(x, c.divisor, c.dimensions), c.patch)
        skips, switches = [], []
        for i in range(len(c.encoder)):
            x = self.get_submodule(f"encoder_{i}")(x)
            skips.append(x if self.relu_last else F.relu(x))
            if self.un_pools:
                x, where = self.pool(x, 2, return_indices=True)
                switches.append(where)
            else:
                x = self.pool(x, 2)
            x = x if self.relu_last else F.relu(x)
        x = self.bottleneck(x)
        for i, widths in enumerate(c.decoder):
            if self.un_pools:
                x = self.get_submodule(f"decoder_{i}")(x) if widths else x
                up = self.un_pool(x, switches.pop(), [2] * c.dimensions)
                up = _relaid(up, x) if self.keep_layout else up
            elif c.up == "nearest":
                up = F.interpolate(x, scale_factor=2)
            else:
                up = self.get_submodule(f"up_{i}")(x)
            skip = skips.pop()
            x = torch.cat([up, skip], 1) if c.skip == "concatenate" else up + skip
            if not self.un_pools and widths:
                x = self.get_submodule(f"decoder_{i}")(x)
        return _crop(self.head(x if self.final is None else self.final(x)), sides)
