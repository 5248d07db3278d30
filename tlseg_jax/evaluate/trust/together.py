"""Which models may predict together."""

from collections.abc import Mapping, Sequence
from typing import Any

from tlseg_jax.runtime.errors import InputError


def check_alike(descriptions: Sequence[Mapping[str, Any]], channels: Sequence[int], where: Sequence[str]) -> None:
    """Check that models can be averaged: they see the same voxels and answer for the same structures.

    Raises:
      InputError: they do not; what differs is named.
    """
    first = descriptions[0]
    for d, seen, name in zip(descriptions[1:], channels[1:], where[1:], strict=True):
        a, b = first["spec"], d["spec"]
        differ = [k for k in sorted({*a, *b} - {"name", "train_count", "test_count"}) if a.get(k) != b.get(k)]
        differ += [k for k in ("prepare", "patch_box") if first.get(k) != d.get(k)]
        differ += ["channels"] if seen != channels[0] else []
        if differ:
            raise InputError(
                f"{name} and {where[0]} cannot predict together, as they differ in {', '.join(differ)}: name runs that "
                "were trained on the same data set and store."
            )
