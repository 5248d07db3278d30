"""Dropout with one random bit a value where half are dropped.

Flax's draws 32 random bits a value. At full resolution the decoder has more values to draw for than
parameters to train: on a CPU a whole training step took 12 to 19% longer (benchmarks/dropout.py).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer, Key

WORD = 32
"""Random bits come in words of this many."""


class Dropout(nn.Module):
    """Set each value to zero with probability `rate` and scale the others by 1 / (1 - rate).

    Attributes:
      rate: from 0 to below 1.
    """

    rate: float

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch *sides channels"], train: bool, samples: Integer[Array, " batch"] | None = None
    ) -> Float[Array, "batch *sides channels"]:
        """`x` itself unless in training. Draws from the random stream "dropout".

        Args:
          x: the input.
          train: whether it acts.
          samples: places of the rows in the whole batch, by which each draws: what is dropped of a sample is
            then the same however the batch is divided. None: 0, 1, ...
        """
        if not train or self.rate == 0:
            return x
        key = self.make_rng("dropout")

        def draw(sample: jax.Array) -> jax.Array:
            own = jax.random.fold_in(key, sample)
            if self.rate == 0.5:
                return random_bits(own, x.shape[1:])
            return jax.random.bernoulli(own, 1 - self.rate, x.shape[1:])

        keep = jax.vmap(draw)(jnp.arange(x.shape[0]) if samples is None else samples)
        return jnp.where(keep, x / (1 - self.rate), jnp.zeros((), x.dtype))


def random_bits(key: Key[Array, ""], shape: tuple[int, ...]) -> Bool[Array, "..."]:
    """Independent fair coins of `shape`; a word's bits lie along the last axis."""
    *outer, last = shape
    words = jax.random.bits(key, (*outer, -(-last // WORD)), jnp.uint32)
    bits = words[..., None] >> jnp.arange(WORD, dtype=jnp.uint32) & 1
    return bits.reshape(*outer, -1)[..., :last].astype(bool)
