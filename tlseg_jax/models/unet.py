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

from tlseg_jax.models.conv import Lowering, conv3d
from tlseg_jax.models.pool import switch_pool, switch_unpool
from tlseg_jax.models.remat import Remat

Widths = tuple[int, ...]
RUNNING_NOWHERE: frozenset[str] = frozenset()


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

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with `dimensions`."""
        return {"dimensions": self.dimensions} | dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, d: Mapping[str, Any]) -> "UNetConfig":
        """The inverse of `to_dict`, also after a trip through JSON."""

        def tuples(v: Any) -> Any:
            return tuple(tuples(i) for i in v) if isinstance(v, list | tuple) else v

        return cls(**{k: tuples(v) for k, v in d.items() if k != "dimensions"})

    def module(self, remat: Remat = "none", lowering: Lowering | None = None) -> "SwitchUNet":
        """The network itself.

        Args:
          remat: what is computed again in the backward pass.
          lowering: of the convolutions; None takes the backend's fastest.
        """
        return SwitchUNet(self, remat, lowering)

    def example(self) -> jax.Array:
        """Zeros in the shape of the smallest input."""
        return jnp.zeros((1, *(self.divisor,) * 3, 1))


class Conv3(nn.Module):
    """3x3x3 convolution without bias (a batch norm follows), He-normal start."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(batch, depth, height, width, channels) -> (..., features)."""
        shape = (3, 3, 3, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape, jnp.float32)
        return conv3d(x, kernel.astype(x.dtype))


class Block(nn.Module):
    """Convolution, batch normalisation, ReLU, once for each width; the last ReLU is the caller's."""

    widths: Widths
    momentum: float
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, running: frozenset[str]) -> jax.Array:
        """(batch, depth, height, width, channels) -> (..., widths[-1]), before the last ReLU.

        Args:
          x: the input.
          train: whether batch statistics normalise (and move the running averages).
          running: names of batch norms, such as "encoder_0/bn_0", that use their running averages
            all the same and leave them as they are.
        """
        for i, width in enumerate(self.widths):
            x = Conv3(width, name=f"conv_{i}")(x)
            average = not train or f"{self.name}/bn_{i}" in running
            x = nn.BatchNorm(use_running_average=average, momentum=self.momentum, dtype=self.dtype, name=f"bn_{i}")(x)
            if i + 1 < len(self.widths):
                x = nn.relu(x)
        return x


class SwitchUNet(nn.Module):
    """3D U-Net whose decoder un-pools by the encoder's max switches."""

    config: UNetConfig
    remat: Remat = "none"
    lowering: Lowering | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, running: frozenset[str] = RUNNING_NOWHERE) -> jax.Array:
        """Per-voxel logits.

        Args:
          x: (batch, depth, height, width, channels), any sides: padded with zeros at the far end to
            a multiple of `config.divisor`, and the logits cropped back.
          train: whether batch statistics normalise.
          running: batch norms that keep to their running averages even in training.

        Returns:
          (batch, depth, height, width, outputs) float32 logits.
        """
        c = self.config
        sides = x.shape[1:4]
        pad = [(0, -s % c.divisor) for s in sides]
        x = x.astype(c.dtype)
        if any(p for _, p in pad):
            x = jnp.pad(x, [(0, 0), *pad, (0, 0)])

        def block(name: str, widths: Widths, x: jax.Array) -> jax.Array:
            return Block(widths, c.momentum, c.dtype, name=name)(x, train, running)

        skips = []
        for i, widths in enumerate(c.encoder):
            x = block(f"encoder_{i}", widths, x)
            # Pooling before the ReLU gives the same maxima. After it, every cell that the ReLU
            # silenced would be a tie, and all ties un-pool into the same corner.
            pooled, switches = switch_pool(x)
            skips.append((nn.relu(x), switches))
            x = nn.relu(pooled)
        x = nn.relu(block("bottleneck", c.bottleneck, x))
        for i, widths in enumerate(c.decoder):
            if widths:
                x = nn.relu(block(f"decoder_{i}", widths, x))
            skip, switches = skips.pop()
            x = switch_unpool(x, switches)
            x = jnp.concatenate([x, skip], axis=-1) if c.skip == "concatenate" else x + skip
        if c.final:
            x = nn.relu(block("final", c.final, x))
        # A 1x1x1 convolution is a product over the channels.
        logits = nn.Dense(len(c.outputs), dtype=c.dtype, name="head")(x)
        return logits[:, : sides[0], : sides[1], : sides[2]].astype(jnp.float32)
