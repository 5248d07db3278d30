"""The flags that every command which trains single runs has: how, and what changes its speed and memory."""

from tlseg_jax.commands import compilation_flags, flags, place_flags
from tlseg_jax.studies.settings import Training
from tlseg_jax.train.execution import Execution
from tlseg_jax.train.recipes import FIXED, Recipe

TRAINING = flags.define(Training, leave_out=("n", "recipe_values"))
RECIPE = flags.define(Recipe, leave_out=FIXED, absent="all", after=" Not given: as the recipe has it.")
EXECUTION = flags.define(Execution, defaults={"parallel": None})
flags.adopt(place_flags, compilation_flags)


def training(n: int | None = None) -> Training:
    """How the flags have a model trained on n labelled scans; those of the recipe change it where they are given.

    Raises:
      InputError: a value cannot be read.
    """
    return TRAINING.settings(n=n, recipe_values=RECIPE.given())
