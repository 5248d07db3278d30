"""What the host learns of a training and writes down: losses, read a few steps late, scores, epochs, the bar."""

import collections
import math
from typing import NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from tlseg_jax.checkpoints.state import TrainState
from tlseg_jax.runtime import processes
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.train.board import Board
from tlseg_jax.train.dispatch import Metrics
from tlseg_jax.train.history import CurvePoints, Epochs, History
from tlseg_jax.train.step_clock import StepClock
from tlseg_jax.train.trainer import Trainer

LAG = 8
"""Steps that may be under way before the oldest loss is read: also how many batches are sent ahead."""

MOST_TESTS = 8
"""The whole test set is looked at after every epoch of a run of up to this many, about this often in longer ones."""


class Call(NamedTuple):
    """A call of the step that may still be under way.

    Attributes:
      seen: whose samples each of its steps saw.
      metrics: of each step.
      samples: in a batch, of all processes.
      test: the test loss after it, where it is looked at.
    """

    last: int
    seen: list[list[str]]
    metrics: Metrics
    samples: int
    test: jax.Array | None


class Readings:
    """The record of one training, in its folder and on the bar; close it."""

    def __init__(self, trainer: Trainer, start: int) -> None:
        """Go on after `start` steps with what the folder says of them."""
        self._trainer, self.clock = trainer, StepClock()
        self._under_way: collections.deque[Call] = collections.deque()
        self.history = History(trainer.folder / "history.csv", start)
        self.epochs = Epochs(trainer.folder / "epochs.csv", start)
        self._board = Board(trainer.folder / "tensorboard", start)
        # A finished or early-stopped run that is called again has nothing to do.
        self._bar = tqdm(
            total=trainer.settings.steps,
            initial=start,
            desc=trainer.title,
            unit="step",
            mininterval=1.0,
            disable=not (trainer.progress and processes.is_chief()),
            leave=None,  # below a bar of many runs it goes when its run is done
        )

    @property
    def losses(self) -> CurvePoints:
        """(step, loss)."""
        return self.history.curves["loss"]

    @property
    def validation(self) -> CurvePoints:
        """(step, score)."""
        return self.history.curves["validation_iou"]

    def add(self, call: Call) -> None:
        """Take a call whose metrics may not be there yet."""
        self._under_way.append(call)

    def keep_up(self) -> None:
        """Read the oldest call where more than `LAG` steps are under way."""
        if len(self._under_way) > max(1, LAG // self._trainer.step.most):
            self._read_oldest()

    def read_all(self) -> None:
        """Wait for all calls, and read them.

        Raises:
          InputError: see `fit`.
        """
        while self._under_way:
            self._read_oldest()

    def _read_oldest(self) -> None:
        call = self._under_way.popleft()
        values = [np.atleast_1d(call.metrics[k]) for k in ("loss", "update_norm")]
        for i, names in enumerate(call.seen):
            self._read_one(call.last - len(call.seen) + 1 + i, names, *(float(v[i]) for v in values))
        if call.test is not None:
            self.history.add(call.last, "test_loss", float(call.test))
            self._board.add("test/loss_of_draw", float(call.test), call.last)
        self._bar.update(len(call.seen))
        rate = self.clock.rate(call.last)
        if rate is not None:
            self._bar.set_postfix_str(
                f"loss {self.losses[-1][1]:.4f}, {call.samples * rate:.1f} samples/s", refresh=False
            )
            self._board.add("train/patches_per_second", call.samples * rate, call.last)

    def _read_one(self, done: int, names: list[str], loss: float, update_norm: float) -> None:
        # A finite loss may still have had a gradient that is not.
        if not np.isfinite(loss) or not np.isfinite(update_norm):
            what = f"loss became {loss}" if not np.isfinite(loss) else f"update became {update_norm}"
            # All processes have the same loss, and each knows its own rows of the batch only.
            names = sorted({name for part in processes.gather(names) for name in part})
            raise InputError(
                f"The {what} at step {done}, on {', '.join(names)}: lower `learning_rate`, "
                f"or look at those scans; no checkpoint in {self._trainer.folder} is from after it."
            )
        self.history.add(done, "loss", loss)
        self._board.add("train/loss", loss, done)
        self._board.add("train/update_norm", update_norm, done)

    def add_score(self, step: int, score: float) -> None:
        """Record a validation."""
        self.history.add(step, "validation_iou", score)
        self._board.add("validation/iou", score, step)

    def end_epoch(self, step: int, state: TrainState) -> None:
        """Record the epoch that ends with this step, all steps of which are read; now and then with a test loss."""
        ends, watch = self._trainer.settings.epoch_ends, self._trainer.hooks.watch
        number = ends.index(step) + 1
        first = ends[number - 2] if number > 1 else 0
        mean = float(np.mean([v for s, v in self.losses if first < s <= step]))
        # A small set has many short epochs: looking at the whole test set after each would take longer than training.
        every = math.ceil(len(ends) / MOST_TESTS)
        test = watch.whole(state) if watch and (number % every == 0 or number == len(ends)) else None
        seconds = self.clock.end_epoch(step - first)
        self.epochs.add(epoch=number, step=step, seconds=seconds, train_loss=mean, test_loss=test)
        if seconds is not None:
            self._board.add("train/epoch_seconds", seconds, number)
        self._bar.set_description(f"{self._trainer.title}, epoch {number}/{len(ends)}")

    def flush(self) -> None:
        """Put what was added on the disk."""
        self.history.flush()
        self._board.flush()

    def close(self) -> None:
        """Close the files and the bar."""
        self._bar.close()
        self._board.close()
        self.history.close()
