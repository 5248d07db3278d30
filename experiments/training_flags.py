"""The flags that `pretrain` and `finetune` share, as the library's settings."""

from pathlib import Path

from absl import flags

from experiments import evaluation_flags
from tlseg_jax.errors import InputError
from tlseg_jax.models.networks import NETWORKS, get_network
from tlseg_jax.train.job import JobSettings
from tlseg_jax.train.losses import LOSSES
from tlseg_jax.train.recipes import Recipe, get_recipe
from tlseg_jax.transfer.freeze import FREEZING
from tlseg_jax.transfer.study import Workplace

WORKDIR = flags.DEFINE_string("workdir", "runs", "Folder of the runs, and of the built-in cohort where it is used.")
STORE = flags.DEFINE_string("store", None, "Folder of your prepared data sets; none: the built-in synthetic cohort.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of the parameters, the order, the augmentation and the choice of scans.")
NETWORK = flags.DEFINE_string("network", "switch32", f"One of {', '.join(NETWORKS)}.")
RECIPE = flags.DEFINE_string(
    "recipe", "default", "How to train: default, or paper (its setting to the letter)."
)
STEPS = flags.DEFINE_integer("steps", None, "The most training steps; none: the recipe's.", lower_bound=1)
LOSS = flags.DEFINE_enum("loss", None, list(LOSSES), "In place of the recipe's.")
LEARNING_RATE = flags.DEFINE_float("learning_rate", None, "In place of the recipe's.", lower_bound=0)
EPSILON = flags.DEFINE_float("epsilon", None, "Adam's, in place of the recipe's.", lower_bound=0)
EPSILON_HAT = flags.DEFINE_bool("epsilon_hat", None, "Whether epsilon is TensorFlow 1.15's, in place of the recipe's.")
SCHEDULE = flags.DEFINE_enum("schedule", None, ["constant", "cosine"], "In place of the recipe's.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", None, "Patches a step, in place of the recipe's.", lower_bound=1)
INTENSITY = flags.DEFINE_bool(
    "intensity_augmentation", None, "Random contrast, bias field and noise; the recipe's if not given."
)
AFFINE = flags.DEFINE_bool(
    "affine_augmentation", None, "Small random rotation, scaling, shift; the recipe's if not given."
)
VALIDATION = flags.DEFINE_integer(
    "validation", 0, "How many of the n labelled scans validate instead of train.", lower_bound=0
)
VALIDATE_EVERY = flags.DEFINE_integer("validate_every", 50, "Steps between validations.", lower_bound=1)
PATIENCE = flags.DEFINE_integer(
    "patience", 0, "Stop after this many validations without a better one; 0: never.", lower_bound=0
)
CHECKPOINT_EVERY = flags.DEFINE_integer("checkpoint_every", 200, "Steps between checkpoints.", lower_bound=1)
THREADS = flags.DEFINE_integer("threads", 2, "Threads that read patches.", lower_bound=0)
INPUT_WORKERS = flags.DEFINE_integer("input_workers", 0, "Processes that read patches; 0: threads only.", lower_bound=0)
WORKERS = flags.DEFINE_integer("workers", 2, "Processes that draw and prepare the built-in cohort.", lower_bound=1)
COHORT_TRAIN = flags.DEFINE_integer("cohort_train", 24, "Training subjects of the built-in cohort.", lower_bound=2)
COHORT_TEST = flags.DEFINE_integer("cohort_test", 6, "Test subjects of the built-in cohort.", lower_bound=1)
DISTANCES = evaluation_flags.define_distances()
TILES = evaluation_flags.define_tiles()
flags.adopt_module_key_flags(evaluation_flags)  # so that --help lists them

FREEZE_NAMES = list(FREEZING)

COHORT_STEPS = {"pretrain": 200, "finetune": 120}
"""Lengths for the built-in cohort, whose easier heads need no more and whose run should end in minutes."""


def workplace() -> Workplace:
    """Where this command works."""
    return Workplace(
        Path(WORKDIR.value), Path(STORE.value) if STORE.value else None, COHORT_TRAIN.value, COHORT_TEST.value,
        WORKERS.value, DISTANCES.value, evaluation_flags.tiles(TILES),
    )  # fmt: skip


def recipe() -> Recipe:
    """The recipe with what the flags change in it."""
    return get_recipe(RECIPE.value).override(
        loss=LOSS.value, learning_rate=LEARNING_RATE.value, epsilon=EPSILON.value, epsilon_hat=EPSILON_HAT.value,
        schedule=SCHEDULE.value, batch_size=BATCH_SIZE.value, intensity_augmentation=INTENSITY.value,
        affine_augmentation=AFFINE.value,
    )  # fmt: skip


def default_steps(kind: str, chosen: Recipe) -> int:
    """Length of "pretrain" or "finetune" where no flag gives it."""
    if STORE.value is None and chosen.name == "default":
        return COHORT_STEPS[kind]
    return chosen.pretrain_steps if kind == "pretrain" else chosen.finetune_steps


def job(kind: str, steps: int | None, *, n: int | None = None, freeze: str = "none", frozen_bn: str = "running",
        head: str = "keep") -> JobSettings:  # fmt: skip
    """The settings of one training run from the flags; validation is for the run that the user named."""
    if n is not None and n < 1:
        raise InputError(f"--n={n} labelled scans is not usable: give 1 or more.")
    chosen = recipe()
    return JobSettings(
        get_network(NETWORK.value), chosen, steps or default_steps(kind, chosen), n, SEED.value, freeze,
        "running" if frozen_bn == "running" else "batch", "keep" if head == "keep" else "reset",
        VALIDATION.value, VALIDATE_EVERY.value, PATIENCE.value, CHECKPOINT_EVERY.value, THREADS.value,
        INPUT_WORKERS.value,
    )  # fmt: skip


def run_name(*parts: str) -> str:
    """A run folder's name; network and recipe are in it where they are not the default."""
    extra = [v for v, usual in ((NETWORK.value, "switch32"), (RECIPE.value, "default")) if v != usual]
    return "-".join([*parts, *extra, f"seed{SEED.value}"])
