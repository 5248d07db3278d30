"""What a run takes where nobody says otherwise, by its data."""

import dataclasses
from collections.abc import Mapping

from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.models.networks import get_network
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.transfer.freeze import Freeze

USUAL_NETWORK: Mapping[str, str] = {"volumes": "unet_fast", "slices": "unet2d_fast"}
"""By kind of data; see `usual_network`."""

PAPER_NETWORK: Mapping[str, str] = {"volumes": "switch8x2", "slices": "unet2d"}
"""By kind of data, with the papers' recipes."""

PAPERS_FREEZE: Mapping[str, Freeze] = {"volumes": "encoder", "slices": "first_two"}
"""What the papers freeze from a pre-trained start, by kind of data: so do a study's methods that say nothing of it."""

COHORT_STEPS: Mapping[str, int] = {"pretrain": 200, "finetune": 600}
"""Lengths for the built-in cohort, whose easier heads need no more and whose run should end in minutes."""


def usual_network(spec: DatasetSpec, recipe: str) -> str:
    """The name of the network that a data set is trained with where none is given: of a paper's recipe the paper's."""
    return (PAPER_NETWORK if recipe == "paper" else USUAL_NETWORK)[spec.kind]


def usual_freeze(spec: DatasetSpec, recipe: str) -> Freeze:
    """What is frozen from a pre-trained start where nobody says: with the papers' recipes what they freeze, else
    nothing, which scored higher with volumes (benchmarks/recipe.md).
    """
    return PAPERS_FREEZE[spec.kind] if recipe == "paper" else "none"


def network_for(spec: DatasetSpec, name: str, precision: str, channels: int = 1) -> UNetConfig:
    """The network for a data set, with its outputs.

    Args:
      channels: slices: how many neighbours the network sees at once, itself among them.

    Raises:
      InputError: no network has that name, it is of another dimensionality than the data, or `channels` has no middle.
    """
    chosen = get_network(name)
    if chosen.dimensions != spec.grid.axes:
        raise InputError(
            f"The network {chosen.name} is {chosen.dimensions}D and {spec.name} is a data set of {spec.kind}: "
            f"choose `network={USUAL_NETWORK[spec.kind]}`."
        )
    if channels % 2 == 0:
        raise InputError(f"`slice_channels={channels}` has no middle slice: give an odd number.")
    return dataclasses.replace(chosen, outputs=spec.outputs, channels=channels, dtype=precision)
