"""Rates that fall from the output down: what is far from it moves least.

Layer-wise decay of the rate (Clark et al., ELECTRA, ICLR 2020), on the blocks of a U-Net.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict

from tlseg_jax.runtime.errors import InputError

_ENDS = ("head", "final")
_DOWN = ("bottleneck",)


def check_layer_decay(decay: float) -> None:
    """Raise InputError: it is no factor."""
    if not (math.isfinite(decay) and 0 < decay <= 1):
        raise InputError(
            f"`layer_decay={decay}` is not a factor of rates: give 1 (one rate for all) or less, above 0, such as 0.75."
        )


def depths(blocks: Mapping[str, Any]) -> dict[str, int]:
    """How many blocks lie between each block of a network and its output.

    The head is 0, and the finest level's encoder, which comes first on the way in, the deepest. What brings the decoder
    up to a level counts with the decoder's block there; blocks that a network lacks do not count.
    """

    def place(name: str) -> tuple[int, int]:
        if name in _ENDS:
            return (_ENDS.index(name), 0)
        if name in _DOWN:
            return (3, 0)
        found = re.fullmatch(r"(decoder|up|encoder)_(\d+)", name)
        if found is None:
            raise ValueError(f"{name} is no block of a network that this knows")
        return (4 if found[1] == "encoder" else 2, -int(found[2]))

    order = {p: i for i, p in enumerate(sorted({place(name) for name in blocks}))}
    return {name: order[place(name)] for name in blocks}


def rate_factors(labels: Mapping[str, Any], decay: float) -> dict[str, Any]:
    """A tree like `labels`, of the factors of the rate: decay^depth (`depths`)."""
    of = depths(labels)
    return unflatten_dict({path: decay ** of[path[0]] for path in flatten_dict(labels)})  # type: ignore[no-any-return]
