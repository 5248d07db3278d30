"""The flags that every command which trains single runs has."""

from tlseg_jax.commands import flags, place_flags
from tlseg_jax.studies.settings import Training
from tlseg_jax.train.recipes import FIXED, Recipe

TRAINING = flags.define(Training, leave_out=("n", "recipe_values"))
RECIPE = flags.define(Recipe, leave_out=FIXED, absent="all", after=" Not given: as the recipe has it.")
flags.adopt(place_flags)


def training(n: int | None = None) -> Training:
    """How the flags have a model trained on n labelled scans; those of the recipe change it where they are given.

    Raises:
      InputError: a value cannot be read.
    """
    return TRAINING.settings(n=n, recipe_values=RECIPE.given())
