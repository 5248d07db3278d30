"""One U-Net of 2 or 3 dimensions: what the papers' networks differ in is data (`models/networks.py` has theirs)."""

import dataclasses
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Integer

from tlseg_jax.models.block import Block, Widths
from tlseg_jax.models.features import Features, Part, check_part, first_levels, given_level, sides_of
from tlseg_jax.models.layers import RUNNING_NOWHERE, Init, Parts, Projection, UpConv
from tlseg_jax.models.lowering.conv import Lowering
from tlseg_jax.models.pad import crop, pad_to_multiple
from tlseg_jax.models.pool import cells, switch_pool, switch_unpool
from tlseg_jax.models.remat import Remat, rematerialised, rematerialised_level
from tlseg_jax.models.up_conv import up_nearest


@dataclasses.dataclass(frozen=True)
class UNetConfig:
    """Everything that a network is rebuilt from.

    Attributes:
      name: what users call it.
      encoder: widths of the convolutions of each block before a pooling, finest first.
      bottleneck: widths of the convolutions at the coarsest resolution.
      decoder: widths of a block for each level of the encoder, coarsest first. Un-pooling keeps the channels, so there
        it is the block before, and () where what comes is of that level's width; else it is the block after.
      final: widths of a last block at full resolution, or ().
      skip: how an encoder block's output joins what comes up from below.
      outputs: channels of the head, in order.
      momentum: of the batch norms' running averages.
      dtype: of the activations; parameters and batch statistics stay float32.
      dimensions: sides of an image, 2 or 3.
      up: by the encoder's max switches, by a transposed convolution, or by repeating each value.
      narrow_up: whether a transposed convolution gives as many channels as the skip has, not as many as it takes.
      short_skips: whether a 1x1 projection of each block's input is added to its output.
      dropout: share of values set to zero before each 3x3 convolution of the decoder in training.
      init: how kernels start; None: He normal before a ReLU, LeCun normal elsewhere (`models/layers.py`).
      channels: of the input: 1, or an odd number of neighbouring slices (2.5D).
      patch: side of the cells of the input that are one voxel of the finest level, their voxels as its channels; the
        head is then a transposed convolution, so that nothing is computed at full resolution; 1: a voxel is a voxel.
    """

    name: str
    encoder: tuple[Widths, ...]
    bottleneck: Widths
    decoder: tuple[Widths, ...]
    final: Widths = ()
    skip: Literal["concatenate", "add"] = "concatenate"
    outputs: tuple[str, ...] = ("background", "structure")
    momentum: float = 0.9
    dtype: str = "float32"
    dimensions: int = 3
    up: Literal["switch", "transposed", "nearest"] = "switch"
    narrow_up: bool = False
    short_skips: bool = False
    dropout: float = 0.0
    init: Init | None = None
    channels: int = 1
    patch: int = 1

    @classmethod
    def concatenating(cls, name: str, encoder: tuple[Widths, ...], **given: Any) -> "UNetConfig":
        """Transposed convolutions, and two convolutions on the way up of each level's last width (Çiçek et al. 2016).

        Args:
          name: what users call it.
          encoder: widths of each level, finest first; the last is the bottleneck's.
          **given: other fields.
        """
        *down, bottleneck = encoder
        decoder = tuple((widths[-1],) * 2 for widths in reversed(down))
        return cls(name, tuple(down), bottleneck, decoder, **{"up": "transposed"} | given)

    @classmethod
    def residual(cls, name: str, widths: Widths, **given: Any) -> "UNetConfig":
        """The liver report's form in 2D: two convolutions of one width a level, short skips and dropout.

        Args:
          name: what users call it.
          widths: of each level, finest first; the last is the bottleneck's.
          **given: other fields.
        """
        form = {"dimensions": 2, "narrow_up": True, "short_skips": True, "dropout": 0.5, "init": "xavier"}
        given = form | {"outputs": ("liver", "tumour")} | given
        return cls.concatenating(name, tuple((w, w) for w in widths), **given)

    @property
    def divisor(self) -> int:
        """Sides are padded to a multiple of this."""
        return int(self.patch * 2 ** len(self.encoder))

    @property
    def levels(self) -> int:
        """Resolution levels, the bottleneck's included."""
        return len(self.encoder) + 1

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, which `config_from_dict` reads: the form that earlier versions gave the same network.

        A run is known again by them. So what `concatenating` or `residual` makes is told by their arguments, and of
        all else what earlier versions had no word for is told only where it is not the default.
        """
        d = dataclasses.asdict(self)
        told = {k: d[k] for k in ("name", "outputs", "momentum", "dtype")}
        levels = (*self.encoder, self.bottleneck)
        if self == UNetConfig.concatenating(encoder=levels, **told):
            return {"dimensions": 3, "architecture": "concatenating", "encoder": levels, **told}
        told |= {k: d[k] for k in ("channels", "dropout", "init")}
        widths = tuple(w[-1] for w in levels)
        if self == UNetConfig.residual(widths=widths, **told):
            return {"dimensions": 2, "widths": widths, **told}
        later = ("up", "narrow_up", "short_skips", "dropout", "init", "channels", "patch")
        return {k: v for k, v in d.items() if k not in later or v != getattr(UNetConfig, k)}

    def module(self, remat: Remat = "none", lowering: Lowering | None = None, axis: str | None = None) -> "UNet":
        """The network itself.

        Args:
          remat: what is computed again in the backward pass.
          lowering: of the convolutions; None takes what is usual on the device.
          axis: of devices, where each sees its own rows of the batch; None: the batch is whole.
        """
        return UNet(self, remat, lowering, axis)

    def example(self) -> jax.Array:
        """Zeros in the shape of the smallest input."""
        return jnp.zeros((1, *(self.divisor,) * self.dimensions, self.channels))


class UNet(nn.Module):
    """The network of a config."""

    config: UNetConfig
    remat: Remat = "none"
    lowering: Lowering | None = None
    axis: str | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch *sides channels"] | Features,
        train: bool = False,
        running: frozenset[str] = RUNNING_NOWHERE,
        part: Part = "all",
        levels: int = 0,
        samples: Integer[Array, " batch"] | None = None,
    ) -> Float32[Array, "batch *sides outputs"] | Features:
        """Logits of each pixel or voxel.

        Args:
          x: of any sides: padded with zeros at the far end to a multiple of
            `config.divisor` (260 becomes 264), and the logits cropped back.
          train: whether batch statistics normalise and dropout acts; dropout draws from the random
            stream "dropout".
          running: batch norms that keep to their running averages even in training.
          part: "features" computes the first `levels` resolution levels, and "rest" all that follows from what
            that gave as `x` (`models/features.py`); the parameters are those of the whole network.
          levels: how many levels, from the finest; up to `config.levels`, of which the bottleneck is the last.
          samples: places of the rows in the whole batch, by which dropout draws; None: 0, 1, ...

        Returns:
          Logits, or the features.
        """
        c = self.config
        check_part(x, part, levels, c.levels)
        kind = rematerialised(Block, self.remat)
        # Pooling before the ReLU gives the same maxima. After it, every cell that the ReLU
        # silenced would be a tie, and all ties un-pool into the same corner. A short skip has no ReLU after it.
        relu_last = c.up != "switch" or c.short_skips

        def block(
            net: nn.Module, name: str, widths: Widths, parts: Parts, dropout: float = 0.0, relu: bool = True
        ) -> jax.Array:
            form = (widths, c.momentum, c.short_skips, dropout, c.init, self.lowering, self.axis)
            return kind(*form, name=name, parent=net)(tuple(parts), train, running, relu, samples)

        def down(net: nn.Module, i: int, x: jax.Array) -> tuple[Features, jax.Array]:
            if i == len(c.encoder):
                return {}, block(net, "bottleneck", c.bottleneck, (x,))
            x = block(net, f"encoder_{i}", c.encoder[i], (x,), relu=relu_last)
            pooled, switches = switch_pool(x)
            kept = {"skip": x if relu_last else nn.relu(x)} | ({"switches": switches} if c.up == "switch" else {})
            return kept, pooled if relu_last else nn.relu(pooled)

        def up(net: nn.Module, number: int, y: jax.Array, kept: Features) -> jax.Array:
            if c.up == "switch":
                return switch_unpool(y, kept["switches"])
            if c.up == "nearest":
                return up_nearest(y)
            width = (kept["skip"] if c.narrow_up else y).shape[-1]
            return UpConv(width, c.init, name=f"up_{number}", parent=net)((y,))

        def level(net: nn.Module, i: int, x: Any) -> Parts:
            """Parts that come out at resolution level `i` for what goes into it."""
            kept, below = given_level(x, i, levels) if i < given else down(net, i, x)
            if i == len(c.encoder):
                return (below,)
            parts: Parts = nested_level(net, i + 1, below)
            number = len(c.encoder) - 1 - i
            widths = c.decoder[number]

            def decoded(parts: Parts) -> Parts:
                return (block(net, f"decoder_{number}", widths, parts, c.dropout),) if widths else parts

            (y,) = decoded(parts) if c.up == "switch" else parts
            y, skip = up(net, number, y, kept), kept["skip"]
            parts = (y, skip) if c.skip == "concatenate" else (y + skip,)
            return parts if c.up == "switch" else decoded(parts)

        given = levels if part == "rest" else 0
        start: Any = x
        if isinstance(x, dict):
            sides = sides_of(x)
        elif x.ndim != c.dimensions + 2 or x.shape[-1] != c.channels:
            raise ValueError(f"{c.name} takes (batch, {', '.join('xyz'[: c.dimensions])}, {c.channels}), not {x.shape}")
        else:
            padded, sides = pad_to_multiple(x.astype(c.dtype), c.divisor)
            start = cells(padded, c.patch)
        if part == "features":
            return first_levels(self, down, levels, start, sides)
        nested_level = rematerialised_level(level, self.remat)
        parts = nested_level(self, 0, start)
        if c.final:
            parts = (block(self, "final", c.final, parts, c.dropout),)
        width = len(c.outputs)
        head = Projection(width, c.init, name="head") if c.patch == 1 else UpConv(width, c.init, c.patch, name="head")
        return crop(head(parts), sides).astype(jnp.float32)
