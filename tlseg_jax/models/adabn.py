"""Batch norms that normalise by a blend of the scan's own statistics and the running ones (AdaBN, Li et al. 2017).

The running averages are of the training scans; of a scan of another source they are off from the first layer on, and
more from layer to layer. The blend is that of Schneider et al. 2020, of a single scan in place of a batch.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float

from tlseg_jax.models.networks import probabilities_of
from tlseg_jax.models.norm import BatchNorm
from tlseg_jax.models.unet import UNetConfig


def adapting(
    config: UNetConfig, share: float
) -> Callable[[Any, Float[Array, "batch x y _"], Float[Array, " batch"]], tuple[Float[Array, "batch x y *_"], Any]]:
    """A network whose norms take `share` of what normalises from its input, to be jitted.

    Each norm sees what those before it made of the input by their own blends.

    Returns:
      (variables, image, weights) -> (probabilities, as `networks.probability` has them, statistics): the image's own
      means and variances, a tree like the batch statistics, in which row i of the image counts `weights`[i] times.
    """
    module = config.module()

    def of(variables: Any, image: Any, weights: Any) -> tuple[Any, Any]:
        own: dict[tuple[str, ...], jax.Array] = {}
        each = weights / weights.sum()

        def normalise(do: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
            norm = context.module
            if isinstance(norm, BatchNorm) and context.method_name == "__call__":
                wide = args[0].astype(jnp.float32)
                sides = tuple(range(1, wide.ndim - 1))
                mean = each @ wide.mean(sides)
                # About the mean, and not the mean of squares less its square, which rounds where the mean is large.
                var = each @ jnp.square(wide - mean).mean(sides)
                for name, new in (("mean", mean), ("var", var)):
                    own[*norm.path, name] = new
                    kept: Any = norm.get_variable("batch_stats", name)
                    norm.put_variable("batch_stats", name, (1 - share) * kept + share * new)
            return do(*args, **kwargs)

        with nn.intercept_methods(normalise):
            shaped = image if image.ndim > config.dimensions + 1 else image[..., None]
            logits, _ = module.apply(variables, shaped, mutable=["batch_stats"])
        return probabilities_of(config, logits), unflatten_dict(own)

    return of


def pooled(parts: list[Any], weights: list[float]) -> Any:
    """Statistics of several parts of a scan as those of the whole, each part counted by its weight."""
    flat, total = [flatten_dict(p) for p in parts], sum(weights)

    def mean(values: list[Any]) -> Any:
        return sum(w * v for w, v in zip(weights, values, strict=True)) / total

    out = {}
    for path in flat[0]:
        means = [p[*path[:-1], "mean"] for p in flat]
        out[path] = mean(means)
        if path[-1] == "var":
            within, whole = mean([p[path] for p in flat]), mean(means)
            out[path] = within + mean([(m - whole) ** 2 for m in means])
    return unflatten_dict(out)


def blended(running: Any, own: Any, share: float) -> Any:
    """Batch statistics of `share` of `own` and the rest of `running`."""
    return jax.tree.map(lambda a, b: (1 - share) * a + share * b, running, own)
