"""How to train: the papers' settings to the letter, and ours."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from tlseg_jax.datasets.spec import Kind
from tlseg_jax.runtime.bounds import Positive, Rate, Share
from tlseg_jax.runtime.choose import choose

Phase = Literal["pretrain", "finetune"]
Schedule = Literal["constant", "cosine"]
Unfreezing = Literal["at_once", "staged", "warmup_all"]
Optimiser = Literal["adam", "muon"]

OPTIMISERS: Mapping[str, bool] = {"adam": False, "muon": True}
"""Name -> whether kernels are trained by Muon."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything about the optimisation that is not the network or the data.

    Attributes:
      name: what users call it.
      loss: cross_entropy, dice, cross_entropy_dice or generalised_dice, or liver_bce, which counts inside the liver
        (`losses`); bce and bce_dice are the first and the third.
      label_smoothing: share of each voxel's label that is spread over all outputs, in the cross-entropy (`losses`),
        such as 0.1; 0: none, as is usual of several structures.
      learning_rate: the highest rate.
      optimiser: adam, or muon, which is Muon for kernels and Adam for biases and norms
        (`muon.scale_by_muon_and_adam`).
      momentum: muon: decay of the gradients' mean.
      epsilon: Adam's smoothing term.
      epsilon_hat: whether epsilon is TensorFlow 1.15's, outside the bias correction.
      b1: decay of the first moment.
      b2: decay of the second moment.
      schedule: of the rate: constant, or cosine (linear warm-up, then down to 1% of the rate).
      warmup_steps: of the cosine schedule.
      batch_size: patches or slices a step.
      pretrain_steps: default length of pre-training, and of end-to-end pre-tasks.
      finetune_steps: default length of fine-tuning.
      intensity_augmentation: random contrast, brightness, bias field and noise, beyond Table 1.
      affine_augmentation: small random rotation, scaling and shift, beyond Table 1.
      affine_strength: how many times as far they go as to 10 degrees, 10% and 4% of the side.
      elastic_augmentation: smooth random displacements, whose standard deviation goes up to so many voxels.
      epochs: default length for slices, which count in epochs.
      l2sp: fine-tuning: strength alpha of the pull to the pre-trained parameters (L2-SP, `train.l2sp`), such as 0.01;
        0 for none.
      unfreezing: fine-tuning: at_once, or staged: the head, then the decoder, then the rest, a third of the run each,
        at rates that fall by 2.6 from one to the next, or warmup_all: the decoder and the head for a tenth of the run,
        then all, with a warm-up of a tenth of the run for each (`transfer.stages`).
      randomisation: contrast, bias field, sharpness, slice thickness and noise drawn anew for each patch
        (`input.randomise`), in place of intensity_augmentation; a pre-training that is missing is made without.
      ema: decay of an average of the weights over the steps, which is then the model (`train.ema`), such as 0.99;
        0: the last step's are.
      layer_decay: fine-tuning: each block's rate is the one's nearer to the output times this (`transfer.layerwise`),
        such as 0.75; 1: all have one rate.
      mix_synthetic: share of the samples whose place one takes that is drawn from a label map of `synthetic`
        (`train.synthetic`), such as 0.3; 0: of none.
      synthetic: the prepared data set of label maps that these are drawn from, beside the scans' own, or its folder.
      accumulate: micro-batches that a batch is computed in, one after the other, to save memory; batch norms see
        micro-batches, and Dice losses are their mean (`step.make_step_function`).
    """

    name: str
    loss: str
    learning_rate: Rate
    epsilon: Rate
    epsilon_hat: bool
    schedule: Schedule
    batch_size: Positive = 2
    optimiser: Optimiser = "adam"
    momentum: float = 0.6
    b1: float = 0.9
    b2: float = 0.999
    warmup_steps: int = 20
    pretrain_steps: int = 800
    finetune_steps: int = 500
    intensity_augmentation: bool = False
    affine_augmentation: bool = False
    affine_strength: Rate = 1.0
    elastic_augmentation: Rate = 0.0
    epochs: int = 0
    l2sp: Rate = 0.0
    unfreezing: Unfreezing = "at_once"
    randomisation: bool = False
    ema: Share = 0.0
    layer_decay: Share = 1.0
    mix_synthetic: Share = 0.0
    synthetic: str = "brain_maps"
    label_smoothing: Share = 0.0
    accumulate: Positive = 1

    def override(self, **given: Any) -> "Recipe":
        """A copy with every value of `given` that is not None."""
        return dataclasses.replace(self, **{k: v for k, v in given.items() if v is not None})

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; what earlier versions had no word for is told only where it is not the default.

        A run is known again by them.
        """
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in LATER or v != getattr(Recipe, k)}


FIXED = ("name", "b1", "b2", "warmup_steps", "pretrain_steps", "finetune_steps", "epochs")
"""Fields that are a recipe's own: all others a user may change, by a flag or a keyword of their names."""

LATER = ("ema", "layer_decay", "mix_synthetic", "synthetic", "label_smoothing")
"""Fields that came after runs were first known by their recipes."""


# Section 3.1: Adam, initial rate 0.001, epsilon 0.1 (TensorFlow 1.15's), batch 2. It learns
# slowly on a structure of 1% of the patch, hence the steps.
_PAPER = Recipe("paper", "cross_entropy", 1e-3, 0.1, True, "constant", pretrain_steps=20_000, finetune_steps=10_000)
_DEFAULT = Recipe(
    "default",
    "cross_entropy_dice",
    0.03,
    1e-8,
    False,
    "cosine",
    optimiser="muon",
    intensity_augmentation=True,
    affine_augmentation=True,
    affine_strength=1.5,
    elastic_augmentation=2.0,
    label_smoothing=0.1,
)
# Sections 3.2.2 and 3.2.3 of the liver report: Adam, binary cross-entropy; 1e-4, batches of 10 and 5
# epochs to pre-train, 5e-4, batches of 18 and 8 epochs on the target (the report says "5e-4, not changed" after
# 1e-4: --learning_rate gives either).
_REPORT = Recipe("paper", "bce", 1e-4, 1e-8, False, "constant", batch_size=10, epochs=5)
_SLICES = _DEFAULT.override(learning_rate=0.02, batch_size=10, epochs=10)

RECIPES: Mapping[Kind, Mapping[str, Mapping[Phase, Recipe]]] = {
    "volumes": {r.name: {"pretrain": r, "finetune": r} for r in (_PAPER, _DEFAULT)},
    "slices": {
        "paper": {"pretrain": _REPORT, "finetune": _REPORT.override(learning_rate=5e-4, batch_size=18, epochs=8)},
        "default": {"pretrain": _SLICES, "finetune": _SLICES},
    },
}
"""Kind of data -> name -> phase -> recipe."""


def get_recipe(name: str, kind: Kind = "volumes", phase: Phase = "finetune") -> Recipe:
    """A recipe by name, for a kind of data and a phase of transfer.

    Raises:
      InputError: no recipe of that kind of data has that name.
    """
    return choose("recipe" if kind == "volumes" else f"recipe for {kind}", name, RECIPES[kind])[phase]
