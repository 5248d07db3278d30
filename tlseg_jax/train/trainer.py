"""What one training is made of: the step, the first state, the batches, how long, and what is done beside the steps."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from tlseg_jax.checkpoints.checkpoint import Checkpoints
from tlseg_jax.checkpoints.state import TrainState
from tlseg_jax.train.dispatch import Dispatch
from tlseg_jax.train.history import CurvePoints
from tlseg_jax.train.trace import Trace

if TYPE_CHECKING:  # a machine that only measures steps may have no grain
    import grain


@dataclasses.dataclass(frozen=True)
class LoopSettings:
    """How long and how often.

    Attributes:
      validate_every: steps between validations; 0 never validates.
      patience: validations without a better score before stopping; 0 never stops early.
      epoch_ends: the last step of each epoch, for runs that count in epochs.
      watch_every: steps between looks at the test loss; 0 never looks.
    """

    steps: int
    checkpoint_every: int = 200
    validate_every: int = 0
    patience: int = 0
    epoch_ends: tuple[int, ...] = ()
    watch_every: int = 0

    def validates(self, step: int) -> bool:
        """Whether there is a validation after this step."""
        return bool(self.validate_every) and (step % self.validate_every == 0 or step == self.steps)

    def saves(self, step: int) -> bool:
        """Whether there is a checkpoint after this step."""
        return step in (self.steps, *self.epoch_ends) or step % self.checkpoint_every == 0 or self.validates(step)

    def watches(self, step: int) -> bool:
        """Whether the test loss is looked at after this step."""
        return bool(self.watch_every) and (step % self.watch_every == 0 or step == 1)

    def next_look(self, step: int, watches: bool) -> int:
        """The first step after this one whose state the host needs: to save, to validate or for a test loss."""
        every = [self.checkpoint_every, *([self.validate_every] if self.validate_every else [])]
        if watches:
            every.append(self.watch_every)
        later = [self.steps, *(step - step % e + e for e in every), *(e for e in self.epoch_ends if e > step)]
        return 1 if watches and step == 0 else min(later)

    def out_of_patience(self, validation: CurvePoints) -> bool:
        """Whether the last `patience` scores of these are no better than those before them."""
        if not self.patience or len(validation) <= self.patience:
            return False
        scores = [s for _, s in validation]
        return max(scores[-self.patience :]) <= max(scores[: -self.patience])


@dataclasses.dataclass(frozen=True, eq=False)
class Watch:
    """Losses on test data while training goes on; they are looked at and decide nothing.

    Attributes:
      draw: state -> loss on a fixed draw, a scalar that is read later.
      whole: state -> loss on the whole test set.
    """

    draw: Callable[[TrainState], jax.Array]
    whole: Callable[[TrainState], float]


@dataclasses.dataclass(frozen=True, eq=False)
class Hooks:
    """What is done beside the steps; each may be left out but for `save`.

    Attributes:
      save: opens the run's checkpoints: those that are there are gone on from.
      validate: state -> score, larger is better.
      watch: test losses; on the draw every `LoopSettings.watch_every` steps, on all at epochs' ends.
      trace: to record some steps with.
    """

    save: Callable[[], Checkpoints]
    validate: Callable[[TrainState], float] | None = None
    watch: Watch | None = None
    trace: Trace | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Trainer:
    """One training, ready for `fit`.

    Attributes:
      state: the first state; given away.
      batches: of samples, or of which samples where `step` has them on the device.
      subjects: what the batches' "index" counts, for messages.
      description: saved with each checkpoint.
      hooks: what is done beside the steps.
    """

    step: Dispatch
    state: TrainState
    batches: "grain.DatasetIterator"
    subjects: Sequence[str]
    settings: LoopSettings
    folder: Path
    description: dict[str, Any]
    hooks: Hooks
    progress: bool = True
    title: str = "training"


@dataclasses.dataclass(frozen=True, eq=False)
class Fit:
    """What training ended with.

    Attributes:
      resumed_at: the step that this call went on from; 0 where it started.
      losses: (step, loss) of the whole run, earlier calls included.
      validation: (step, score).
      stopped: why it ended: "steps", "patience" or, before it began, "dry run".
      test_losses: (step, loss on the fixed draw of test samples); empty where there is none.
    """

    state: TrainState
    resumed_at: int
    losses: CurvePoints
    validation: CurvePoints
    stopped: str
    test_losses: CurvePoints = dataclasses.field(default_factory=list)
    epochs: list[dict[str, str]] = dataclasses.field(default_factory=list)
