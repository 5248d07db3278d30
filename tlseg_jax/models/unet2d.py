"""The liver report's 2D U-Net (Wang & Tang 2020, section 3.2.2, after Chlebus et al. 2018).

Four resolution levels, long skips that concatenate and short skips within each block, 3x3 convolutions
with batch norm and ReLU, dropout before each convolution of the upscaling path, one sigmoid output a
structure. Its channel numbers and the short skips' form are in neither text: widths 32 to 256 and a 1x1
projection are this project's reading, of 2,012,514 parameters with two outputs.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Integer

from tlseg_jax.models.dropout import Dropout
from tlseg_jax.models.features import Features, Part, check_part, first_levels, given_level, sides_of
from tlseg_jax.models.layers import RUNNING_NOWHERE, Conv, Parts, Projection, UpConv
from tlseg_jax.models.lowering.conv import Lowering
from tlseg_jax.models.norm import BatchNorm
from tlseg_jax.models.pad import crop, pad_to_multiple
from tlseg_jax.models.pool import switch_pool
from tlseg_jax.models.remat import Remat, rematerialised, rematerialised_level

Init = Literal["he", "xavier"]


@dataclasses.dataclass(frozen=True)
class SliceUNetConfig:
    """Everything that a 2D network is rebuilt from.

    Attributes:
      name: what users call it.
      widths: channels of each resolution level, finest first; the last is the bottleneck's.
      channels: of the input: 1, or an odd number of neighbouring slices (2.5D).
      outputs: structures that the head's sigmoids stand for, in order.
      dropout: share of values set to zero before each 3x3 convolution of the decoder in training.
      momentum: of the batch norms' running averages.
      init: how kernels start: "xavier" is the Xavier normal of the report's model A (section 4.2), "he"
        the He normal usual before a ReLU.
      dtype: of the activations; parameters and batch statistics stay float32.
    """

    dimensions: ClassVar[int] = 2

    name: str = "unet2d"
    widths: tuple[int, ...] = (32, 64, 128, 256)
    channels: int = 1
    outputs: tuple[str, ...] = ("liver", "tumour")
    dropout: float = 0.5
    momentum: float = 0.9
    init: Init = "xavier"
    dtype: str = "float32"

    @property
    def divisor(self) -> int:
        """Sides are padded to a multiple of this."""
        return 2 ** (len(self.widths) - 1)

    @property
    def levels(self) -> int:
        """Resolution levels, the bottleneck's included."""
        return len(self.widths)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with `dimensions`."""
        return {"dimensions": self.dimensions} | dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, d: Mapping[str, Any]) -> "SliceUNetConfig":
        """The inverse of `to_dict`, also after a trip through JSON."""
        given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in d.items()}
        given.pop("dimensions", None)
        return cls(**given)

    def module(self, remat: Remat = "none", lowering: Lowering | None = None, axis: str | None = None) -> "SliceUNet":
        """The network itself.

        Args:
          remat: what is computed again in the backward pass.
          lowering: of the convolutions; None takes the backend's fastest.
          axis: of devices, where each sees its own rows of the batch; None: the batch is whole.
        """
        return SliceUNet(self, remat, lowering, axis)

    def example(self) -> jax.Array:
        """Zeros in the shape of the smallest input."""
        return jnp.zeros((1, self.divisor, self.divisor, self.channels))


def _initializer(init: Init) -> Any:
    return {"he": nn.initializers.he_normal, "xavier": nn.initializers.xavier_normal}[init]()


class ResidualBlock(nn.Module):
    """Convolution, batch norm and ReLU, twice, plus a 1x1 projection of the input: the short skip."""

    features: int
    dropout: float
    config: SliceUNetConfig
    lowering: Lowering | None = None
    axis: str | None = None

    @nn.compact
    def __call__(
        self, parts: Parts, train: bool, running: frozenset[str], samples: Integer[Array, " batch"] | None = None
    ) -> Float[Array, "batch x y {self.features}"]:
        """The block of parts with two sides.

        Args:
          parts: the input.
          train: whether batch statistics normalise (and move the running averages) and dropout acts.
          running: names of batch norms, such as "encoder_0/bn_0", that use their running averages
            all the same and leave them as they are.
          samples: places of the rows in the whole batch, by which dropout draws; None: 0, 1, ...
        """
        c, init = self.config, _initializer(self.config.init)
        short = Projection(self.features, init, bias=False, name="short")(parts)
        for i in range(2):
            parts = [Dropout(self.dropout)(p, train, samples) for p in parts]
            x = Conv(self.features, init, self.lowering, name=f"conv_{i}")(parts)
            average = not train or f"{self.name}/bn_{i}" in running
            x = BatchNorm(c.momentum, self.axis, name=f"bn_{i}")(x, average, True)
            parts = (x,)
        return x + short


class SliceUNet(nn.Module):
    """2D U-Net with long and short skips."""

    config: SliceUNetConfig
    remat: Remat = "none"
    lowering: Lowering | None = None
    axis: str | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch x y channels"] | Features,
        train: bool = False,
        running: frozenset[str] = RUNNING_NOWHERE,
        part: Part = "all",
        levels: int = 0,
        samples: Integer[Array, " batch"] | None = None,
    ) -> Float32[Array, "batch x y outputs"] | Features:
        """Per-pixel logits.

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
          Logits, one sigmoid each, or the features.
        """
        c = self.config
        check_part(x, part, levels, c.levels)
        kind = rematerialised(ResidualBlock, self.remat)

        def block(net: nn.Module, name: str, width: int, parts: Parts, dropout: float = 0.0) -> jax.Array:
            made = kind(width, dropout, c, self.lowering, self.axis, name=name, parent=net)
            return made(tuple(parts), train, running, samples if dropout else None)

        def down(net: nn.Module, i: int, x: jax.Array) -> tuple[Features, jax.Array]:
            if i == len(c.widths) - 1:
                return {}, block(net, "bottleneck", c.widths[-1], (x,))
            skip = block(net, f"encoder_{i}", c.widths[i], (x,))
            return {"skip": skip}, switch_pool(skip)[0]

        def level(net: nn.Module, i: int, x: Any) -> jax.Array:
            """What comes out at resolution level `i` for what goes into it."""
            kept, below = given_level(x, i, levels) if i < given else down(net, i, x)
            if i == len(c.widths) - 1:
                return below
            below = nested_level(net, i + 1, below)
            number = len(c.widths) - 2 - i
            up = UpConv(c.widths[i], _initializer(c.init), name=f"up_{number}", parent=net)(below)
            return block(net, f"decoder_{number}", c.widths[i], (up, kept["skip"]), c.dropout)

        given = levels if part == "rest" else 0
        start: Any = x
        if isinstance(x, dict):
            sides = sides_of(x)
        elif x.ndim != 4 or x.shape[-1] != c.channels:
            raise ValueError(f"{c.name} takes (batch, x, y, {c.channels}), not {x.shape}")
        else:
            start, sides = pad_to_multiple(x.astype(c.dtype), c.divisor)
        if part == "features":
            return first_levels(self, down, levels, start, sides)
        nested_level = rematerialised_level(level, self.remat)
        y = nested_level(self, 0, start)
        logits = Projection(len(c.outputs), _initializer(c.init), name="head")((y,))
        return crop(logits, sides).astype(jnp.float32)
