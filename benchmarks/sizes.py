"""The papers' patch sizes and batches, and the reduced ones that a CPU measures in minutes."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from tlseg_jax.runtime.errors import InputError


@dataclasses.dataclass(frozen=True)
class Size:
    """What a network is measured on.

    Attributes:
      network: a name of `NETWORKS`.
      frozen: how the papers freeze this network, a name of `FREEZING`.
    """

    network: str
    batch: int
    shape: tuple[int, ...]
    data: str
    frozen: str = "encoder"

    @property
    def name(self) -> str:
        """The network with what it is measured on: "switch32, 2 x 72x112x112"."""
        return f"{self.network}, {self.batch} x " + "x".join(map(str, self.shape))

    def case(self, dtype: str) -> dict[str, Any]:
        """What a case of a result begins with."""
        return {"network": self.network, "batch": self.batch, "shape": list(self.shape), "dtype": dtype}

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with `name`."""
        return {"name": self.name} | dataclasses.asdict(self)


_BRAIN = "HDT patches of the brain paper"
PAPERS: tuple[Size, ...] = (
    Size("switch32", 2, (72, 112, 112), _BRAIN),
    Size("switch8x2", 2, (72, 112, 112), _BRAIN),
    Size("unet_fast", 2, (72, 112, 112), _BRAIN),
    Size("unet3d256", 1, (320, 260, 72), "whole MRI of the liver report"),
    Size("unet2d", 10, (512, 512), "CT slices of the liver report", "first_two"),
    Size("unet2d", 18, (320, 260), "MRI slices of the liver report", "first_two"),
    Size("unet2d_fast", 10, (512, 512), "CT slices of the liver report", "first_two"),
)
REDUCED: tuple[Size, ...] = (
    Size("switch32", 2, (36, 56, 56), "half a side of the brain paper's patches"),
    Size("switch8x2", 2, (36, 56, 56), "half a side of the brain paper's patches"),
    Size("unet_fast", 2, (36, 56, 56), "half a side of the brain paper's patches"),
    Size("unet3d256", 1, (64, 64, 32), "part of an MRI"),
    Size("unet2d", 4, (128, 128), "a quarter of a CT slice's side", "first_two"),
    Size("unet2d_fast", 4, (128, 128), "a quarter of a CT slice's side", "first_two"),
)


TINY: tuple[Size, ...] = (
    Size("switch32", 1, (32, 32, 32), "a rehearsal"),
    Size("switch8x2", 1, (32, 32, 32), "a rehearsal"),
    Size("unet_fast", 1, (32, 32, 32), "a rehearsal"),
    Size("unet3d256", 1, (16, 16, 16), "a rehearsal"),
    Size("unet2d", 1, (32, 32), "a rehearsal", "first_two"),
    Size("unet2d_fast", 1, (32, 32), "a rehearsal", "first_two"),
)

WHOLE_HEAD = Size("switch32", 2, (176, 224, 160), "the whole MNI305 head, padded")
"""The batch that did not fit the brain paper's card of 11 GB."""

Kind = Literal["papers", "reduced", "tiny"]
KINDS: Mapping[Kind, tuple[Size, ...]] = {"papers": PAPERS, "reduced": REDUCED, "tiny": TINY}


def get_sizes(network: str, kind: Kind = "papers") -> tuple[Size, ...]:
    """What a network is measured on.

    Raises:
      InputError: nothing is said of that network.
    """
    found = tuple(s for s in KINDS[kind] if s.network == network)
    if not found:
        raise InputError(f"benchmarks/sizes.py says no size for the network {network}: add one.")
    return found


def get_size(network: str) -> Size:
    """The first of the papers' sizes of a network."""
    return get_sizes(network)[0]
