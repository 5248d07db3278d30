"""How many of a network's first resolution levels give the same features in every step: the wholly frozen ones."""

from collections.abc import Mapping
from typing import Any, Literal

import jax

from tlseg_jax.models.unet import UNetConfig


def frozen_levels(config: UNetConfig, labels: Mapping[str, Any], frozen_bn: Literal["running", "batch"]) -> int:
    """Leading levels of which every parameter is frozen and every batch norm keeps to its running averages.

    Args:
      config: the network.
      labels: tree of "trained" and "frozen", from `label_parameters`.
      frozen_bn: what a frozen batch norm does; with "batch" its result depends on the batch, and no level counts.

    Returns:
      From 0, none, to `config.levels`, all with the bottleneck as the last.
    """
    if frozen_bn != "running":
        return 0
    blocks = [*(f"encoder_{i}" for i in range(config.levels - 1)), "bottleneck"]
    trained = (i for i, name in enumerate(blocks) if "trained" in jax.tree.leaves(labels[name]))
    return next(trained, len(blocks))
