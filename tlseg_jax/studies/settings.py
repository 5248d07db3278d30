"""What a user says of a run, as plain values: `jobs` makes a training's settings of them, and commands their flags."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from tlseg_jax.input.sampling import Sampling
from tlseg_jax.runtime.bounds import Count, Labelled, Positive, Rate
from tlseg_jax.train.step import FrozenBN
from tlseg_jax.transfer.freeze import Freeze
from tlseg_jax.transfer.restore import Head

Precision = Literal["float32", "bfloat16"]


@dataclasses.dataclass(frozen=True)
class Training:
    """How to train one model; what is not given is what is usual for its data.

    Attributes:
      n: labelled scans to train on; not given, or all: all of the training set.
      seed: of the parameters, the order, the augmentation and the choice of scans.
      network: name of the network; not given: unet_fast for volumes and unet2d_fast for slices; with recipe=paper
        switch8x2 and unet2d.
      recipe: how to train: default, or paper (the setting of the brain paper, of slices the liver report's).
      recipe_values: field of `Recipe` -> value in place of the recipe's.
      precision: of the activations; parameters and statistics stay float32. bfloat16, which is not for
        CPUs, halves their memory.
      steps: the most training steps; not given: the recipe's.
      epochs: slices: times through all of them; not given: the recipe's.
      sampling: of slices all: each once an epoch, or balanced: those with the target as often as without; of patches at
        random places balanced has a structure in the middle of every second one.
      slice_channels: slices: how many neighbouring slices the network sees at once (2.5D), odd.
      watch_every: slices: steps between looks at the loss of 10 test slices; 0: never.
      validation: how many of the n labelled scans validate instead of train.
      validate_every: steps between validations.
      patience: stop after this many validations without a better one; 0: never.
      checkpoint_every: steps between checkpoints.
      threads: threads that read patches.
      input_workers: processes that read patches; 0: threads only.
    """

    n: Labelled = None
    seed: int = 0
    network: str | None = None
    recipe: str = "default"
    recipe_values: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)
    precision: Precision = "float32"
    steps: Positive | None = None
    epochs: Positive | None = None
    sampling: Sampling = "all"
    slice_channels: Positive = 1
    watch_every: Count = 5
    validation: Count = 0
    validate_every: Positive = 50
    patience: Count = 0
    checkpoint_every: Positive = 200
    threads: Count = 2
    input_workers: Count = 0


@dataclasses.dataclass(frozen=True)
class Start:
    """What becomes of a pre-trained start.

    Attributes:
      freeze: what keeps its pre-trained values; not given: nothing; with recipe=paper the encoder
        of volumes and the first_two levels of slices.
      frozen_bn: how frozen batch norms normalise: running averages, or the batch.
      head: what becomes of the pre-trained head.
    """

    freeze: Freeze | None = None
    frozen_bn: FrozenBN = "running"
    head: Head = "keep"


@dataclasses.dataclass(frozen=True)
class Missing:
    """How a pre-training that is missing is made, where it is otherwise than the run that starts from it.

    Attributes:
      pretrain_steps: length of a pre-training that is missing.
      pretrain_epochs: slices: epochs of a pre-training that is missing.
      pretrain_learning_rate: slices: rate of a pre-training that is missing, in place of the recipe's.
    """

    pretrain_steps: Positive | None = None
    pretrain_epochs: Positive | None = None
    pretrain_learning_rate: Rate | None = None


@dataclasses.dataclass(frozen=True)
class Pretraining:
    """A pre-training by itself.

    Attributes:
      pretask: what to learn: hdt_v, hdt_wb, mal_c, hdt_c, lits, a data set of the store, or a TOML file.
    """

    pretask: str


@dataclasses.dataclass(frozen=True)
class Finetuning:
    """From where to where.

    Attributes:
      pretask: what to start from: a pre-task, or none for end to end.
      task: the target: a data set's name, one of the store, or a TOML file.
      name: name of the run folder, in place of one made from the settings.
      pretrained: run folder of a pre-trained model, in place of the pre-task's own; or the name of a model that comes
        with the package, such as brain.
    """

    pretask: str | None = None
    task: str = "hdt_c"
    name: str | None = None
    pretrained: str | None = None
