"""Remedies for what a fine-tuned network loses on unseen data, and where each makes sense."""

import dataclasses
import math

from tlseg_jax.runtime.choose import choose
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.train.ema import check_decay
from tlseg_jax.train.recipes import Recipe
from tlseg_jax.transfer.layerwise import check_layer_decay
from tlseg_jax.transfer.stages import UNFREEZING

FIELDS = ("l2sp", "unfreezing", "randomisation", "ema", "layer_decay", "mix_synthetic", "synthetic")
"""Of `Recipe`, that are remedies."""

NEED_A_START = ("l2sp", "unfreezing", "layer_decay")
"""Those of a pre-trained start alone."""


def check_remedies(recipe: Recipe, pretrained: bool) -> None:
    """Refuse a remedy that has nothing to work on.

    Raises:
      InputError: a strength below 0, an unknown unfreezing, or a remedy that needs a pre-trained start without one.
    """
    check_decay(recipe.ema)
    check_layer_decay(recipe.layer_decay)
    if not (math.isfinite(recipe.mix_synthetic) and 0 <= recipe.mix_synthetic < 1):
        raise InputError(
            f"`mix_synthetic={recipe.mix_synthetic}` is not a share of the samples: give 0 (none is drawn) or more, "
            "below 1, such as 0.3; to train on drawn ones alone name their data set."
        )
    choose("unfreezing", recipe.unfreezing, UNFREEZING)
    if not (math.isfinite(recipe.l2sp) and recipe.l2sp >= 0):
        raise InputError(
            f"`l2sp={recipe.l2sp}` is not a strength: give 0 (no pull to the start) or more, such as 0.01."
        )
    for name in NEED_A_START:
        value = getattr(recipe, name)
        if not pretrained and value != getattr(Recipe, name):
            does = "pulls towards" if name == "l2sp" else "spares"
            raise InputError(
                f"`{name}={value}` {does} pre-trained parameters and this run starts from random ones: "
                f"give `pretask`, or leave `{name}` out."
            )
    if recipe.unfreezing == "staged" and recipe.layer_decay != 1:
        raise InputError(
            f"`unfreezing=staged` lowers the rates from group to group and `layer_decay={recipe.layer_decay}` from "
            "block to block: leave one of them out."
        )


def remedy_name(recipe: Recipe) -> str:
    """What of the remedies a recipe has, for names of runs, such as "l2sp0.01-staged-randomised"; "" for none."""
    parts = [
        f"l2sp{recipe.l2sp:g}" if recipe.l2sp else "",
        recipe.unfreezing if recipe.unfreezing != "at_once" else "",
        "randomised" if recipe.randomisation else "",
        f"layers{recipe.layer_decay:g}" if recipe.layer_decay != 1 else "",
        f"ema{recipe.ema:g}" if recipe.ema else "",
        f"mixed{recipe.mix_synthetic:g}" if recipe.mix_synthetic else "",
    ]
    return "-".join(p for p in parts if p)


def without_remedies(recipe: Recipe) -> Recipe:
    """The recipe as a pre-training takes it, so that runs with and without remedies start from the same model."""
    return dataclasses.replace(recipe, **{name: getattr(Recipe, name) for name in FIELDS})


def for_any_start(recipe: Recipe) -> Recipe:
    """The recipe without what needs a pre-trained start."""
    return dataclasses.replace(recipe, **{name: getattr(Recipe, name) for name in NEED_A_START})
