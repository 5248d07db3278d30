"""Where a run's data lie while it trains: read batch by batch, on the device, or there as features."""

import dataclasses
from collections.abc import Callable
from typing import Literal

from tlseg_jax.runtime.device_memory import format_bytes
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.messages import log
from tlseg_jax.train.execution import Cache


@dataclasses.dataclass(frozen=True)
class CachePlan:
    """What of the data is kept on the device.

    Attributes:
      kept: "none": they are read batch by batch.
      levels: of the network's first levels the features are kept; 0 where they are not.
    """

    kept: Literal["none", "device", "features"]
    levels: int = 0


def plan_cache(
    asked: Cache,
    levels: int,
    why_not: str | None,
    feature_bytes: Callable[[], int],
    data_bytes: Callable[[], int],
    room: int,
) -> CachePlan:
    """What `--cache` comes to.

    Args:
      asked: what was asked for; "auto" takes features where they can be kept and fit, else the data where they fit.
      levels: from `frozen_levels`.
      why_not: why features cannot be kept, a sentence; None where they can.
      room: bytes that there are for either.

    Raises:
      InputError: features were asked for and cannot be kept.
    """
    if asked == "none" or asked == "device":
        return CachePlan(asked)
    if asked == "features":
        if why_not:
            raise InputError(f"`cache=features`: {why_not} Give `cache=device` or none.")
        return CachePlan("features", levels)
    if why_not is None and feature_bytes() <= room:
        log.info(f"features of the {levels} frozen level(s) are computed once ({format_bytes(feature_bytes())}).")
        return CachePlan("features", levels)
    reason = why_not or f"The features would take {format_bytes(feature_bytes())} of {format_bytes(room)}."
    fits = data_bytes() <= room
    log.info(f"{reason} {'The data are held on the device' if fits else 'Nor do the data fit: they are streamed'}.")
    return CachePlan("device" if fits else "none")
