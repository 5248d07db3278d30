"""The 3D U-Net with up to 256 channels that the liver report could not fit into memory (Wang & Tang 2020).

The report says three layers, 256 channels and "more than 30 GB". The form is that of Çiçek et al. 2016 with one level
less: two convolutions a level, the second twice as wide as the first, max pooling, 2x2x2 transposed convolutions that
keep the number of channels, concatenation, batch norm; 4,584,866 parameters with two outputs.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Integer

from tlseg_jax.models.block import Block, Widths
from tlseg_jax.models.features import Features, Part, check_part, first_levels, given_level, sides_of
from tlseg_jax.models.layers import RUNNING_NOWHERE, Parts, Projection, UpConv
from tlseg_jax.models.lowering.conv import Lowering
from tlseg_jax.models.pad import crop, pad_to_multiple
from tlseg_jax.models.pool import switch_pool
from tlseg_jax.models.remat import Remat, rematerialised, rematerialised_level


@dataclasses.dataclass(frozen=True)
class UNet3DConfig:
    """Everything that the network is rebuilt from.

    Attributes:
      name: what users call it.
      encoder: widths of the convolutions of each level, finest first; the last is the bottleneck's.
      outputs: channels of the head, in order.
      momentum: of the batch norms' running averages.
      dtype: of the activations; parameters and batch statistics stay float32.
    """

    dimensions: ClassVar[int] = 3
    architecture: ClassVar[str] = "concatenating"

    name: str = "unet3d256"
    encoder: tuple[Widths, ...] = ((32, 64), (64, 128), (128, 256))
    outputs: tuple[str, ...] = ("background", "structure")
    momentum: float = 0.9
    dtype: str = "float32"

    @property
    def divisor(self) -> int:
        """Sides are padded to a multiple of this."""
        return 2 ** (len(self.encoder) - 1)

    @property
    def levels(self) -> int:
        """Resolution levels, the bottleneck's included."""
        return len(self.encoder)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with `dimensions` and `architecture`."""
        return {"dimensions": self.dimensions, "architecture": self.architecture} | dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, d: Mapping[str, Any]) -> "UNet3DConfig":
        """The inverse of `to_dict`, also after a trip through JSON."""
        given = {k: v for k, v in d.items() if k not in ("dimensions", "architecture")}
        given["encoder"] = tuple(tuple(widths) for widths in given["encoder"])
        return cls(**given | {"outputs": tuple(given["outputs"])})

    def module(self, remat: Remat = "none", lowering: Lowering | None = None, axis: str | None = None) -> "UNet3D":
        """The network itself.

        Args:
          remat: what is computed again in the backward pass.
          lowering: of the convolutions; None takes the backend's fastest.
          axis: of devices, where each sees its own rows of the batch; None: the batch is whole.
        """
        return UNet3D(self, remat, lowering, axis)

    def example(self) -> jax.Array:
        """Zeros in the shape of the smallest input."""
        return jnp.zeros((1, *(self.divisor,) * 3, 1))


class UNet3D(nn.Module):
    """3D U-Net with transposed convolutions and concatenation."""

    config: UNet3DConfig
    remat: Remat = "none"
    lowering: Lowering | None = None
    axis: str | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch depth height width channels"] | Features,
        train: bool = False,
        running: frozenset[str] = RUNNING_NOWHERE,
        part: Part = "all",
        levels: int = 0,
        samples: Integer[Array, " batch"] | None = None,
    ) -> Float32[Array, "batch depth height width outputs"] | Features:
        """Per-voxel logits.

        Args:
          x: of any sides: padded with zeros at the far end to
            a multiple of `config.divisor`, and the logits cropped back.
          train: whether batch statistics normalise.
          running: batch norms that keep to their running averages even in training.
          part: "features" computes the first `levels` resolution levels, and "rest" all that follows from what
            that gave as `x` (`models/features.py`); the parameters are those of the whole network.
          levels: how many levels, from the finest; up to `config.levels`, of which the bottleneck is the last.
          samples: unused: nothing here draws at random.

        Returns:
          Logits, or the features.
        """
        c = self.config
        check_part(x, part, levels, c.levels)
        kind = rematerialised(Block, self.remat)

        def block(net: nn.Module, name: str, widths: Widths, parts: Parts) -> jax.Array:
            made = kind(widths, c.momentum, self.lowering, self.axis, name=name, parent=net)
            return made(tuple(parts), train, running, True)

        def down(net: nn.Module, i: int, x: jax.Array) -> tuple[Features, jax.Array]:
            if i == len(c.encoder) - 1:
                return {}, block(net, "bottleneck", c.encoder[-1], (x,))
            skip = block(net, f"encoder_{i}", c.encoder[i], (x,))
            return {"skip": skip}, switch_pool(skip)[0]

        def level(net: nn.Module, i: int, x: Any) -> jax.Array:
            """What comes out at resolution level `i` for what goes into it."""
            kept, below = given_level(x, i, levels) if i < given else down(net, i, x)
            if i == len(c.encoder) - 1:
                return below
            below = nested_level(net, i + 1, below)
            number = len(c.encoder) - 2 - i
            up = UpConv(below.shape[-1], name=f"up_{number}", parent=net)(below)
            return block(net, f"decoder_{number}", (c.encoder[i][-1],) * 2, (up, kept["skip"]))

        given = levels if part == "rest" else 0
        start: Any = x
        if isinstance(x, dict):
            sides = sides_of(x)
        else:
            start, sides = pad_to_multiple(x.astype(c.dtype), c.divisor)
        if part == "features":
            return first_levels(self, down, levels, start, sides)
        nested_level = rematerialised_level(level, self.remat)
        y = nested_level(self, 0, start)
        logits = Projection(len(c.outputs), name="head")((y,))
        return crop(logits, sides).astype(jnp.float32)
