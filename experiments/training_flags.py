"""The flags that `pretrain` and `finetune` share, as the library's settings."""

from absl import flags

from experiments import cli, evaluation_flags, execution_flags
from tlseg_jax.datasets.slice_spec import SliceSpec
from tlseg_jax.datasets.spec import AnySpec
from tlseg_jax.models.networks import NETWORKS, NetworkConfig
from tlseg_jax.runtime import processes
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.studies.workplace import Workplace
from tlseg_jax.train.job_settings import JobSettings
from tlseg_jax.train.losses import LOSSES
from tlseg_jax.train.recipes import Recipe, get_recipe, get_slice_recipe
from tlseg_jax.train.remedies import remedy_name
from tlseg_jax.train.slice_losses import SLICE_LOSSES
from tlseg_jax.train.usual import COHORT_STEPS, USUAL_NETWORK, network_for
from tlseg_jax.transfer.freeze import FREEZING
from tlseg_jax.transfer.stages import UNFREEZING as UNFREEZING_NAMES

SLICE_ONLY_LOSSES = [name for name in SLICE_LOSSES if name not in LOSSES]

WORKDIR = flags.DEFINE_string("workdir", "runs", "Folder of the runs, and of the built-in cohort where it is used.")
STORE = flags.DEFINE_string("store", None, "Folder of your prepared data sets; none: the built-in synthetic cohort.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of the parameters, the order, the augmentation and the choice of scans.")
NETWORK = flags.DEFINE_string(
    "network", None,
    f"One of {', '.join(NETWORKS)}; none given: {USUAL_NETWORK['volumes']} for volumes, "
    f"{USUAL_NETWORK['slices']} for slices.",
)
RECIPE = flags.DEFINE_string(
    "recipe", "default", "How to train: default, or paper (the brain paper's setting to the letter)."
)
STEPS = flags.DEFINE_integer("steps", None, "The most training steps; none: the recipe's.", lower_bound=1)
EPOCHS = flags.DEFINE_integer("epochs", None, "Slices: times through all of them; none: the recipe's.", lower_bound=1)
LOSS = flags.DEFINE_enum("loss", None, [*LOSSES, *SLICE_ONLY_LOSSES], "In place of the recipe's.")
LEARNING_RATE = flags.DEFINE_float("learning_rate", None, "In place of the recipe's.", lower_bound=0)
EPSILON = flags.DEFINE_float("epsilon", None, "Adam's, in place of the recipe's.", lower_bound=0)
EPSILON_HAT = flags.DEFINE_bool("epsilon_hat", None, "Whether epsilon is TensorFlow 1.15's, in place of the recipe's.")
SCHEDULE = flags.DEFINE_enum("schedule", None, ["constant", "cosine"], "In place of the recipe's.")
BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", None, "Patches or slices a step, in place of the recipe's.", lower_bound=1
)
ACCUMULATE = flags.DEFINE_integer(
    "accumulate", 1,
    "Micro-batches that a batch is computed in, one after the other, to save memory; batch norms see micro-batches, "
    "and Dice losses are their mean.", lower_bound=1,
)  # fmt: skip
SAMPLING = flags.DEFINE_enum(
    "sampling", "all", ["all", "balanced"], "Slices: each once an epoch, or those with the target as often as without."
)
SLICE_CHANNELS = flags.DEFINE_integer(
    "slice_channels", 1, "Slices: how many neighbouring slices the network sees at once (2.5D), odd.", lower_bound=1
)
WATCH_EVERY = flags.DEFINE_integer(
    "watch_every", 5, "Slices: steps between looks at the loss of 10 test slices; 0: never.", lower_bound=0
)
INTENSITY = flags.DEFINE_bool(
    "intensity_augmentation", None, "Random contrast, bias field and noise; the recipe's if not given."
)
AFFINE = flags.DEFINE_bool(
    "affine_augmentation", None, "Small random rotation, scaling, shift; the recipe's if not given."
)
L2SP = flags.DEFINE_float(
    "l2sp", None, "Fine-tuning: strength of a pull to the pre-trained parameters (L2-SP), such as 0.01; 0: none.",
    lower_bound=0,
)  # fmt: skip
UNFREEZING = flags.DEFINE_enum(
    "unfreezing", None, list(UNFREEZING_NAMES),
    "Fine-tuning: all that --freeze leaves at once, or staged: the head, then the decoder, then the rest, a third of "
    "the run each, at rates that fall by 2.6 from one to the next.",
)  # fmt: skip
RANDOMISATION = flags.DEFINE_bool(
    "randomisation", None, "Volumes: another contrast, bias field, sharpness, slice thickness and noise each patch, "
    "in place of --intensity_augmentation; a pre-training that is missing is made without.",
)  # fmt: skip
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
COHORT_TRAIN = flags.DEFINE_integer(
    "cohort_train", None, "Training subjects of the built-in cohort; none: 24 heads, 10 or 11 abdomens.", lower_bound=2
)
COHORT_TEST = flags.DEFINE_integer(
    "cohort_test", None, "Test subjects of the built-in cohort; none: 6 heads, 3 or 4 abdomens.", lower_bound=1
)
DISTANCES = evaluation_flags.define_distances()
TILES = evaluation_flags.define_tiles()
flags.adopt_module_key_flags(evaluation_flags)  # so that --help lists them

VOLUMES_ONLY = (INTENSITY, AFFINE, RANDOMISATION, DISTANCES, TILES)
SLICES_ONLY = (EPOCHS, SAMPLING, SLICE_CHANNELS, WATCH_EVERY)
"""Flags that would do nothing with the other kind of data."""

FREEZE_NAMES = list(FREEZING)

def workplace() -> Workplace:
    """Where this command works."""
    return Workplace(
        cli.workdir(WORKDIR.value), cli.store(STORE.value) if STORE.value else None, COHORT_TRAIN.value,
        COHORT_TEST.value,
        WORKERS.value, DISTANCES.value, evaluation_flags.tiles(TILES), processes.say, processes.is_chief(),
    )  # fmt: skip


def recipe(spec: AnySpec, stage: str) -> Recipe:
    """The recipe of a stage ("pretrain", "finetune") with what the flags change in it.

    Raises:
      InputError: no recipe has that name, or a flag does not go with this kind of data.
    """
    slices = isinstance(spec, SliceSpec)
    chosen = get_slice_recipe(RECIPE.value, stage) if slices else get_recipe(RECIPE.value)
    if LOSS.value is not None and LOSS.value not in (SLICE_LOSSES if slices else LOSSES):
        raise InputError(
            f"--loss={LOSS.value} does not go with {spec.kind} such as {spec.name}: "
            f"choose from {', '.join(SLICE_LOSSES if slices else LOSSES)}."
        )
    for flag in VOLUMES_ONLY if slices else SLICES_ONLY:
        if flag.present:
            raise InputError(f"--{flag.name} does not go with {spec.kind} such as {spec.name}: leave it out.")
    return _with_remedies(chosen).override(
        loss=LOSS.value, learning_rate=LEARNING_RATE.value, epsilon=EPSILON.value, epsilon_hat=EPSILON_HAT.value,
        schedule=SCHEDULE.value, batch_size=BATCH_SIZE.value, intensity_augmentation=INTENSITY.value,
        affine_augmentation=AFFINE.value, accumulate=ACCUMULATE.value,
    )  # fmt: skip


def _with_remedies(recipe: Recipe) -> Recipe:
    return recipe.override(l2sp=L2SP.value, unfreezing=UNFREEZING.value, randomisation=RANDOMISATION.value)


def default_steps(stage: str, chosen: Recipe) -> int:
    """Length of "pretrain" or "finetune" on volumes where no flag gives it."""
    if STORE.value is None and chosen.name == "default":
        return COHORT_STEPS[stage]
    return chosen.pretrain_steps if stage == "pretrain" else chosen.finetune_steps


def network(spec: AnySpec) -> NetworkConfig:
    """The network for a data set, with its outputs and channels, at the precision asked for.

    Raises:
      InputError: no network has that name, or it is of another dimensionality than the data.
    """
    return network_for(spec, NETWORK.value, execution_flags.PRECISION.value, SLICE_CHANNELS.value)


def job(spec: AnySpec, stage: str, steps: int | None, *, epochs: int | None = None, n: int | None = None,
        freeze: str = "none", frozen_bn: str = "running", head: str = "keep") -> JobSettings:  # fmt: skip
    """The settings of one training run from the flags; validation is for the run that the user named."""
    if n is not None and n < 1:
        raise InputError(f"--n={n} labelled scans is not usable: give 1 or more.")
    chosen, config = recipe(spec, stage), network(spec)
    slices = isinstance(spec, SliceSpec)
    return JobSettings(
        config, chosen, steps if slices else steps or default_steps(stage, chosen), n, SEED.value, freeze,
        "running" if frozen_bn == "running" else "batch", "keep" if head == "keep" else "reset",
        VALIDATION.value, VALIDATE_EVERY.value, PATIENCE.value, CHECKPOINT_EVERY.value, THREADS.value,
        INPUT_WORKERS.value, (epochs or chosen.epochs) if slices else 0,
        "balanced" if slices and SAMPLING.value == "balanced" else "all", WATCH_EVERY.value if slices else 0,
    )  # fmt: skip


def run_name(spec: AnySpec, *parts: str, ending: str | None = None, remedies: bool = True) -> str:
    """A run folder's name; what is not the default and makes another model is in it.

    Args:
      spec: of the data.
      parts: that it begins with.
      ending: in place of the seed.
      remedies: whether the flags of the remedies (`train.remedies`) are for this run.
    """
    usual = (
        (NETWORK.value, USUAL_NETWORK[spec.kind]), (RECIPE.value, "default"), (LOSS.value, None),
        (SAMPLING.value, "all"), (f"{SLICE_CHANNELS.value}channels", "1channels"),
        (execution_flags.PRECISION.value, "float32"), (f"accumulate{ACCUMULATE.value}", "accumulate1"),
    )  # fmt: skip
    extra = [v for v, default in usual if v is not None and v != default]
    if remedies and (name := remedy_name(_with_remedies(get_recipe("default")))):
        extra.append(name)
    return "-".join([*parts, *extra, ending or f"seed{SEED.value}"])
