"""The brain paper's 3D U-Net with switch un-pooling (Weatheritt et al. 2020, section 3.1 and Fig. 3).

The figure does not survive in the text, so the two readings that meet "about 220,000 parameters" are
both here: `switch32` (222,626) and `switch8x2` (220,282).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Integer

from tlseg_jax.models.block import Block, Widths
from tlseg_jax.models.features import Features, Part, check_part, first_levels, given_level, sides_of
from tlseg_jax.models.layers import RUNNING_NOWHERE, Parts, Projection
from tlseg_jax.models.lowering.conv import Lowering
from tlseg_jax.models.pad import crop, pad_to_multiple
from tlseg_jax.models.pool import switch_pool, switch_unpool
from tlseg_jax.models.remat import Remat, rematerialised, rematerialised_level


@dataclasses.dataclass(frozen=True)
class UNetConfig:
    """Everything that a network is rebuilt from.

    Attributes:
      name: what users call it.
      encoder: widths of the convolutions of each block before a pooling, finest first.
      bottleneck: widths of the convolutions at the coarsest resolution.
      decoder: widths of the block before each un-pooling, coarsest first; () where the bottleneck
        already gives that level's width.
      final: widths of a last block at full resolution, or ().
      skip: how an encoder block's output joins the un-pooled volume.
      outputs: channels of the head, in order.
      momentum: of the batch norms' running averages.
      dtype: of the activations; parameters and batch statistics stay float32.
    """

    dimensions: ClassVar[int] = 3

    name: str
    encoder: tuple[Widths, ...]
    bottleneck: Widths
    decoder: tuple[Widths, ...]
    final: Widths
    skip: Literal["concatenate", "add"]
    outputs: tuple[str, ...] = ("background", "structure")
    momentum: float = 0.9
    dtype: str = "float32"

    @property
    def divisor(self) -> int:
        """Sides are padded to a multiple of this."""
        return 2 ** len(self.encoder)

    @property
    def levels(self) -> int:
        """Resolution levels, the bottleneck's included."""
        return len(self.encoder) + 1

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with `dimensions`."""
        return {"dimensions": self.dimensions} | dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, d: Mapping[str, Any]) -> "UNetConfig":
        """The inverse of `to_dict`, also after a trip through JSON."""

        def tuples(v: Any) -> Any:
            return tuple(tuples(i) for i in v) if isinstance(v, list | tuple) else v

        return cls(**{k: tuples(v) for k, v in d.items() if k != "dimensions"})

    def module(self, remat: Remat = "none", lowering: Lowering | None = None, axis: str | None = None) -> "SwitchUNet":
        """The network itself.

        Args:
          remat: what is computed again in the backward pass.
          lowering: of the convolutions; None takes the backend's fastest.
          axis: of devices, where each sees its own rows of the batch; None: the batch is whole.
        """
        return SwitchUNet(self, remat, lowering, axis)

    def example(self) -> jax.Array:
        """Zeros in the shape of the smallest input."""
        return jnp.zeros((1, *(self.divisor,) * 3, 1))


class SwitchUNet(nn.Module):
    """3D U-Net whose decoder un-pools by the encoder's max switches."""

    config: UNetConfig
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

        def block(net: nn.Module, name: str, widths: Widths, parts: Parts, last_relu: bool = True) -> jax.Array:
            made = kind(widths, c.momentum, self.lowering, self.axis, name=name, parent=net)
            return made(tuple(parts), train, running, last_relu)

        def down(net: nn.Module, i: int, x: jax.Array) -> tuple[Features, jax.Array]:
            if i == len(c.encoder):
                return {}, block(net, "bottleneck", c.bottleneck, (x,))
            x = block(net, f"encoder_{i}", c.encoder[i], (x,), last_relu=False)
            # Pooling before the ReLU gives the same maxima. After it, every cell that the ReLU
            # silenced would be a tie, and all ties un-pool into the same corner.
            pooled, switches = switch_pool(x)
            return {"skip": nn.relu(x), "switches": switches}, nn.relu(pooled)

        def level(net: nn.Module, i: int, x: Any) -> Parts:
            """Parts that come out at resolution level `i` for what goes into it."""
            kept, below = given_level(x, i, levels) if i < given else down(net, i, x)
            if i == len(c.encoder):
                return (below,)
            parts: Parts = nested_level(net, i + 1, below)
            number = len(c.encoder) - 1 - i
            if c.decoder[number]:
                parts = (block(net, f"decoder_{number}", c.decoder[number], parts),)
            (y,) = parts
            up, skip = switch_unpool(y, kept["switches"]), kept["skip"]
            return (up, skip) if c.skip == "concatenate" else (up + skip,)

        given = levels if part == "rest" else 0
        start: Any = x
        if isinstance(x, dict):
            sides = sides_of(x)
        else:
            start, sides = pad_to_multiple(x.astype(c.dtype), c.divisor)
        if part == "features":
            return first_levels(self, down, levels, start, sides)
        nested_level = rematerialised_level(level, self.remat)
        parts = nested_level(self, 0, start)
        if c.final:
            parts = (block(self, "final", c.final, parts),)
        logits = Projection(len(c.outputs), name="head")(parts)
        return crop(logits, sides).astype(jnp.float32)
