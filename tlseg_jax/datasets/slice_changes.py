"""A data set of slices with some of its fields changed, as a user asks for."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from tlseg_jax.datasets.slice_spec import SliceSpec, check_slice_spec
from tlseg_jax.datasets.structures import structures_from
from tlseg_jax.runtime.errors import InputError


def changed_slices(spec: SliceSpec, given: Mapping[str, Any], structures: str | None, where: str) -> SliceSpec:
    """The data set with what is given, and with what follows from that.

    Args:
      spec: the data set.
      given: field -> value.
      structures: they and their label values, see `structures_from`; None keeps them.
      where: what asks for it, for messages.

    Raises:
      InputError: the structures cannot be read, or the values do not fit each other.
    """
    changes = dict(given)
    if structures is not None:
        names, values = structures_from(structures)
        changes |= {"structures": names, "label_values": values, "other_values": "background"}
    if "window" in given:
        changes["scaling"] = "window"
    if "pixel_mm" in given and not 0.05 <= given["pixel_mm"] <= 20:
        raise InputError(f"`pixel_mm={given['pixel_mm']:g}` is no size of a pixel: give mm between 0.05 and 20.")
    if "test_volumes" in given:
        changes["test_slices"] = 0  # the rule that was asked for is the one that counts
    spec = dataclasses.replace(spec, **changes)
    if "pixel_mm" in given and spec.resize != "spacing":
        raise InputError(f"`pixel_mm` is for `resize=spacing`, and it is {spec.resize}: give that, or leave it out.")
    return check_slice_spec(spec, where)
