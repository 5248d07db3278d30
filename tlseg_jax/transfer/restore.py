"""Start a network from a pre-trained one: what is kept, what is replaced, and every difference named."""

import dataclasses
from typing import Any, Literal

from tlseg_jax.errors import InputError
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.train.checkpoint import SavedModel, list_differences

Head = Literal["keep", "reset"]


@dataclasses.dataclass(frozen=True, eq=False)
class Restored:
    """Variables to start from.

    Attributes:
      variables: {"params", "batch_stats"}.
      message: what happened to the head, in a sentence.
    """

    variables: dict[str, Any]
    message: str


def restore_pretrained(
    saved: SavedModel, config: UNetConfig, variables: dict[str, Any], head: Head, where: str
) -> Restored:
    """The pre-trained parameters in the shape of a new network.

    A head with the same number of outputs is kept, as the paper does (both of its tasks have two
    channels), unless `head` is "reset"; one with another number is always replaced by the fresh one.

    Args:
      saved: the pre-trained network.
      config: the new network.
      variables: its fresh variables.
      head: keep or reset.
      where: where `saved` came from, for messages.

    Raises:
      InputError: anything but the head differs in structure, shape or dtype; all differences are listed.
    """
    same_outputs = len(saved.config.outputs) == len(config.outputs)
    fresh = {k: v for k, v in variables["params"].items() if k != "head"}
    old = {k: v for k, v in saved.params.items() if k != "head"}
    lines = list_differences(
        {"params": fresh, "batch_stats": variables["batch_stats"]},
        {"params": old, "batch_stats": saved.batch_stats},
    )
    if same_outputs and head == "keep":
        lines += list_differences({"head": variables["params"]["head"]}, {"head": saved.params["head"]})
    if lines:
        raise InputError(
            f"The pre-trained model in {where} ({saved.config.name}) does not fit {config.name}: "
            + "; ".join(lines)
            + ". Choose the network that it was trained with (--network)."
        )
    if not same_outputs:
        message = (
            f"head replaced: the pre-trained one has {len(saved.config.outputs)} outputs, "
            f"this task {len(config.outputs)}"
        )
    elif head == "reset":
        message = "head reset: started afresh, as asked"
    else:
        message = f"head kept: the same {len(config.outputs)} outputs, as in the paper"
    keep = same_outputs and head == "keep"
    source = saved.params["head"] if keep else variables["params"]["head"]
    return Restored({"params": old | {"head": source}, "batch_stats": saved.batch_stats}, message)
