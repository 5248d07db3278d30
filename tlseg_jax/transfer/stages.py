"""Unfreezing in stages, by a plan that says which blocks begin when and at what rates.

"staged" goes from the head down, with smaller rates further down: the "gradual unfreezing" and "discriminative
fine-tuning" of Howard & Ruder (ACL 2018), made for language models, on the blocks of a U-Net.

"warmup_all" begins with the decoder and the head while the encoder rests, then trains all, and has a warm-up for each,
so that a head that knows nothing yet does not spoil what is pre-trained (nnU-Net's schedule for pre-trained encoders).
"""

import dataclasses
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict

from tlseg_jax.runtime.choose import choose


@dataclasses.dataclass(frozen=True)
class BlockGroup:
    """Blocks that start to train together.

    Attributes:
      name: label of its parameters in the optimiser.
      pattern: of its blocks' names, from their start.
      rate: factor of the learning rate.
      begins: share of the run that is done before.
    """

    name: str
    pattern: str
    rate: float
    begins: Fraction = Fraction(0)


STEP_DOWN = 2.6
"""Each group's rate is the one's above over this (Howard & Ruder, section 3.2)."""

WARMUP = Fraction(1, 10)
"""Share of the run that each warm-up of "warmup_all" takes: nnU-Net's are 50 of 1000 epochs, of far longer epochs."""

Groups = tuple[BlockGroup, ...]
"""In the order of unfreezing; a block belongs to the first whose pattern matches, the bottleneck to the encoder."""

STAGED: Groups = (
    BlockGroup("head", r"head$", 1.0),
    BlockGroup("decoder", r"(decoder|up)_\d+$|final$", 1 / STEP_DOWN, Fraction(1, 3)),
    BlockGroup("encoder", r".*", 1 / STEP_DOWN**2, Fraction(2, 3)),
)

UNFREEZING: Mapping[str, Groups] = {
    "at_once": (),
    "staged": STAGED,
    "warmup_all": (
        BlockGroup("decoder", r"(decoder|up)_\d+$|final$|head$", 1.0),
        BlockGroup("encoder", r".*", 1.0, WARMUP),
    ),
}
"""Name -> its groups; () where there are no stages."""


@dataclasses.dataclass(frozen=True, eq=False)
class UnfreezingStage:
    """Part of a run.

    Attributes:
      last_step: steps done when it ends.
      labels: tree of "trained" and "frozen", as `label_parameters` gives it.
    """

    last_step: int
    labels: dict[str, Any]


def first_steps(steps: int, groups: Groups) -> tuple[int, ...]:
    """Steps done when each of `groups` begins to train."""
    return tuple(int(steps * group.begins) for group in groups)


def label_groups(labels: Mapping[str, Any], groups: Groups) -> dict[str, Any]:
    """A tree like `labels` with the group's name in place of "trained"."""
    out = {
        path: groups[_number(path[0], groups)].name if part == "trained" else part
        for path, part in flatten_dict(labels).items()
    }
    return unflatten_dict(out)  # type: ignore[no-any-return]


def stages(last: Mapping[str, Any], steps: int, unfreezing: str = "staged") -> tuple[UnfreezingStage, ...]:
    """The stages of a run, the last of which ends at `steps`.

    A parameter that is frozen in the last is frozen in all of them; what is trained in one is trained in the next.

    Args:
      last: tree of "trained" and "frozen", of the last stage, from `label_parameters`.
      steps: length of the run.
      unfreezing: a name of `UNFREEZING`; of "at_once" there is a single stage.

    Returns:
      One stage for each set of trained parameters: fewer than there are groups where a group has nothing to train, or
      where the run is too short for a part of it to have a step.

    Raises:
      InputError: no unfreezing has that name.
    """
    groups = choose("unfreezing", unfreezing, UNFREEZING)
    if not groups:
        return (UnfreezingStage(steps, dict(last)),)
    ends = (*first_steps(steps, groups)[1:], steps)
    found: list[UnfreezingStage] = []
    for number, end in enumerate(ends):
        labels = _up_to(last, number, groups)
        if "trained" not in flatten_dict(labels).values() or end <= (found[-1].last_step if found else 0):
            continue
        if found and found[-1].labels == labels:
            found.pop()
        found.append(UnfreezingStage(end, labels))
    return tuple(found)


def _up_to(labels: Mapping[str, Any], number: int, groups: Groups) -> dict[str, Any]:
    """`labels` with the groups after `number` frozen."""
    out = {
        path: part if _number(path[0], groups) <= number else "frozen" for path, part in flatten_dict(labels).items()
    }
    return unflatten_dict(out)  # type: ignore[no-any-return]


def _number(block: str, groups: Groups) -> int:
    return next(i for i, g in enumerate(groups) if re.match(g.pattern, block))
