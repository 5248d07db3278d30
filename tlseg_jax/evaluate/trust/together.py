"""Which models may predict together."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.runtime.errors import InputError


class Member(Protocol):
    """A trained model: a `SavedModel` or an `AnyModel`."""

    @property
    def config(self) -> UNetConfig:
        """The network."""

    @property
    def description(self) -> dict[str, Any]:
        """What its run recorded."""


def check_alike(models: Sequence[Member], where: Sequence[Path]) -> None:
    """Check that models, each of a folder, can be averaged: the same voxels in, the same structures out.

    Raises:
      InputError: they do not; what differs is named.
    """
    first = models[0].description
    for model, name in zip(models[1:], where[1:], strict=True):
        d = model.description
        a, b = first["spec"], d["spec"]
        differ = [k for k in sorted({*a, *b} - {"name", "train_count", "test_count"}) if a.get(k) != b.get(k)]
        differ += [k for k in ("prepare", "patch_box") if first.get(k) != d.get(k)]
        differ += ["channels"] if model.config.channels != models[0].config.channels else []
        if differ:
            raise InputError(
                f"{name} and {where[0]} cannot predict together, as they differ in {', '.join(differ)}: name runs that "
                "were trained on the same data set and store."
            )
