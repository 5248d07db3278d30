"""Start a network from a pre-trained one: what is kept, what is replaced, and every difference named."""

import dataclasses
from typing import Any, Literal

import numpy as np

from tlseg_jax.checkpoints.checkpoint import SavedModel, list_differences
from tlseg_jax.datasets.structures import SIDES
from tlseg_jax.models.networks import is_exclusive
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.runtime.errors import InputError

Head = Literal["keep", "reset"]


@dataclasses.dataclass(frozen=True, eq=False)
class Restored:
    """Variables to start from.

    Attributes:
      variables: {"params", "batch_stats"}.
      message: what happened to the head, in a sentence.
      fresh: what of the parameters is not pre-trained: "head/kernel", or "head/kernel[1]" where only output 1,
        the last axis's, was started afresh.
    """

    variables: dict[str, Any]
    message: str
    fresh: frozenset[str] = frozenset()


def restore_pretrained(
    saved: SavedModel, config: UNetConfig, variables: dict[str, Any], head: Head, where: str
) -> Restored:
    """The pre-trained parameters in the shape of a new network.

    A head with the same outputs is kept, unless `head` is "reset", and so is one of a single structure for a single
    other one, as the brain paper does (its tasks have two channels each). Else outputs of the same name are kept, the
    rest dropped, and new ones start afresh (section 3.2.3 of the liver report keeps the tumour's and deletes the
    liver's); what had no side starts both sides ("caudate" those of "caudate_left" and "caudate_right"), and both sides
    together start what has none, as the mean of their weights.

    Args:
      saved: the pre-trained network.
      config: the new network.
      variables: its fresh variables.
      head: keep or reset.
      where: where `saved` came from, for messages.

    Raises:
      InputError: the networks have other dimensions, or anything but the head differs in structure, shape or
        dtype; all differences are listed.
    """
    check_dimensions(saved, config, where)
    old_outputs, new_outputs = saved.config.outputs, config.outputs
    same_outputs = _same_outputs(saved.config, config)
    fresh = {k: v for k, v in variables["params"].items() if k != "head"}
    old = {k: v for k, v in saved.params.items() if k != "head"}
    lines = list_differences(
        {"params": fresh, "batch_stats": variables["batch_stats"]}, {"params": old, "batch_stats": saved.batch_stats}
    )
    if same_outputs and head == "keep":
        lines += list_differences({"head": variables["params"]["head"]}, {"head": saved.params["head"]})
    if lines:
        raise InputError(
            f"The pre-trained model in {where} ({saved.config.name}) does not fit {config.name}: "
            + "; ".join(lines)
            + ". Choose the network that it was trained with (`network`, `slice_channels`)."
        )
    source = variables["params"]["head"]
    if head == "reset":
        message = "head reset: started afresh, as asked"
    elif same_outputs:
        source = saved.params["head"]
        message = f"head kept: the same {len(new_outputs)} output(s), {', '.join(new_outputs)}"
    else:
        source, message = _match_outputs(saved.params["head"], old_outputs, source, new_outputs)
    restored = {"params": old | {"head": source}, "batch_stats": saved.batch_stats}
    return Restored(restored, message, fresh_parameters(saved, config, head))


def fresh_parameters(saved: SavedModel, config: UNetConfig, head: Head) -> frozenset[str]:
    """What of a network's parameters `restore_pretrained` starts afresh; see `Restored.fresh`."""
    names = frozenset(f"head/{k}" for k in saved.params["head"])
    if head == "reset":
        return names
    if _same_outputs(saved.config, config):
        return frozenset()
    new = [i for i, o in enumerate(config.outputs) if not _starts_of(o, saved.config.outputs)]
    return names if len(new) == len(config.outputs) else frozenset(f"{k}[{i}]" for k in names for i in new)


def _same_outputs(old: UNetConfig, new: UNetConfig) -> bool:
    """Whether a head goes on as it is: of the same outputs, or of a single structure where that was another one."""
    one = is_exclusive(old) and is_exclusive(new) and len(old.outputs) == len(new.outputs) == 2
    return old.outputs == new.outputs or one


def check_dimensions(saved: SavedModel, config: UNetConfig, where: str) -> None:
    """Refuse a 2D model as the start of a 3D one, and the other way round.

    Raises:
      InputError: the networks have other dimensions.
    """
    if saved.config.dimensions != config.dimensions:
        raise InputError(
            f"The pre-trained model in {where} is {saved.config.dimensions}D ({saved.config.name}) and this network is "
            f"{config.dimensions}D ({config.name}): their weights do not fit; pre-train on data of the same kind."
        )


def _match_outputs(
    old: dict[str, Any], old_outputs: tuple[str, ...], new: dict[str, Any], new_outputs: tuple[str, ...]
) -> tuple[dict[str, Any], str]:
    """The new head with the old one's columns wherever an output has the same name, and what became of each."""
    starts = {o: s for o in new_outputs if (s := _starts_of(o, old_outputs))}
    head = {k: np.array(v) for k, v in new.items()}
    for output, names in starts.items():
        at = [old_outputs.index(n) for n in names]
        for k in head:
            head[k][..., new_outputs.index(output)] = np.asarray(old[k])[..., at].mean(-1)
    used = {n for names in starts.values() for n in names}
    parts = [
        ("kept", [o if names == (o,) else f"{o} (from {' and '.join(names)})" for o, names in starts.items()]),
        ("dropped", [o for o in old_outputs if o not in used]),
        ("started afresh", [o for o in new_outputs if o not in starts]),
    ]
    return head, "head by output name: " + "; ".join(f"{', '.join(names)} {what}" for what, names in parts if names)


def _starts_of(output: str, old_outputs: tuple[str, ...]) -> tuple[str, ...]:
    """The old outputs that one starts from: its namesake, else the one without a side, else those of both sides."""
    without = next((output.removesuffix(s) for s in SIDES if output.endswith(s)), "")
    sides = tuple(output + s for s in SIDES)
    for names in ((output,), (without,), sides):
        if all(n in old_outputs for n in names):
            return names
    return ()
