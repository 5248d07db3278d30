"""The training loop: no host sync a step, losses read a few steps late, NaN named, resumable exactly."""

import collections
import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from tqdm import tqdm

from tlseg_jax.errors import InputError
from tlseg_jax.train.checkpoint import Checkpoints
from tlseg_jax.train.history import Curve, Epochs, History
from tlseg_jax.train.state import TrainState
from tlseg_jax.train.step import Step

if TYPE_CHECKING:  # a machine that only measures steps may have no grain
    import grain

LAG = 8
"""Steps that may be under way before the oldest loss is read."""


MOST_TESTS = 8
"""The whole test set is looked at after every epoch of a run of up to this many, about this often in longer ones."""


@dataclasses.dataclass(frozen=True)
class LoopSettings:
    """How long and how often.

    Attributes:
      steps: the most steps.
      checkpoint_every: steps between checkpoints.
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


@dataclasses.dataclass(frozen=True, eq=False)
class Fit:
    """What training ended with.

    Attributes:
      state: the last state.
      resumed_at: the step that this call went on from; 0 where it started.
      losses: (step, loss) of the whole run, earlier calls included.
      validation: (step, score).
      stopped: why it ended: "steps" or "patience".
      test_losses: (step, loss on the fixed draw of test samples); empty where there is none.
      epochs: rows of epochs.csv.
    """

    state: TrainState
    resumed_at: int
    losses: Curve
    validation: Curve
    stopped: str
    test_losses: Curve = dataclasses.field(default_factory=list)
    epochs: list[dict[str, str]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, eq=False)
class Watch:
    """Losses on test data while training goes on; they are looked at and decide nothing.

    Attributes:
      draw: state -> loss on a fixed draw, a scalar that is read later.
      whole: state -> loss on the whole test set.
    """

    draw: Callable[[TrainState], jax.Array]
    whole: Callable[[TrainState], float]


class _EpochClock:
    """Seconds of the epochs, from the steps that were timed.

    A call's first step waits for the compiler and is not timed; an epoch that a call was resumed in
    is timed from there on. Both count at the mean of the epoch's other steps.
    """

    def __init__(self, ends: tuple[int, ...]) -> None:
        self._ends = ends
        self.start()

    def start(self) -> None:
        self._timed, self._spent, self._clock = 0, 0.0, time.perf_counter()

    def pause(self, timed: int) -> None:
        """Add the time since the last start, over so many steps."""
        self._spent += time.perf_counter() - self._clock
        self._timed += timed

    def resume(self) -> None:
        self._clock = time.perf_counter()

    def seconds(self, end: int) -> float | None:
        """Of the epoch that ends with step `end`; None where no step of it was timed."""
        i = self._ends.index(end)
        steps = end - (self._ends[i - 1] if i else 0)
        return round(self._spent / self._timed * steps, 3) if self._timed else None


def fit(
    step: Step,
    state: TrainState,
    iterator: "grain.DatasetIterator",
    subjects: Sequence[str],
    settings: LoopSettings,
    folder: Path,
    description: dict[str, Any],
    *,
    validate: Callable[[TrainState], float] | None = None,
    watch: Watch | None = None,
    progress: bool = True,
    title: str = "training",
) -> Fit:
    """Train until `settings.steps`, or until validation stops improving; goes on from a checkpoint.

    Args:
      step: from `make_train_step`.
      state: the first state; replaced by the newest checkpoint's where `folder` has one.
      iterator: from `make_batches`.
      subjects: what the batches' "index" counts, for messages.
      settings: length and intervals.
      folder: the run folder.
      description: saved with each checkpoint.
      validate: state -> score, larger is better.
      watch: test losses; on the draw every `settings.watch_every` steps, on all at epochs' ends (`MOST_TESTS`).
      progress: whether to draw a bar.
      title: of the bar.

    Raises:
      InputError: the loss became NaN or infinite: names the step and the subjects of its batch.
    """
    from tensorboardX import SummaryWriter

    pending: collections.deque[tuple[int, list[str], dict[str, jax.Array]]] = collections.deque()
    with Checkpoints(folder / "checkpoints") as checkpoints:
        if checkpoints.latest is not None:
            state = checkpoints.restore(state, iterator)
        start = int(state.step)
        history = History(folder / "history.csv", start)
        losses, validation = history.curves["loss"], history.curves["validation_iou"]
        epochs = Epochs(folder / "epochs.csv", start)
        writer = SummaryWriter(str(folder / "tensorboard"), purge_step=start)
        # A finished or early-stopped run that is called again has nothing to do.
        bar = tqdm(total=settings.steps, initial=start, desc=title, unit="step", disable=not progress, mininterval=1.0)
        clock, epoch_clock, timed_from = time.perf_counter(), _EpochClock(settings.epoch_ends), start
        size = 0
        stopped = "patience" if _out_of_patience(validation, settings.patience) else "steps"

        def read_one() -> None:
            done, names, values = pending.popleft()
            loss, update_norm = float(values["loss"]), float(values["update_norm"])
            # A finite loss may still have had a gradient that is not.
            if not np.isfinite(loss) or not np.isfinite(update_norm):
                what = f"loss became {loss}" if not np.isfinite(loss) else f"update became {update_norm}"
                raise InputError(
                    f"The {what} at step {done}, on {', '.join(names)}: lower --learning_rate, "
                    f"or look at those scans; no checkpoint in {folder} is from after it."
                )
            history.add(done, "loss", loss)
            writer.add_scalar("train/loss", loss, done)
            if "test_loss" in values:
                history.add(done, "test_loss", float(values["test_loss"]))
                writer.add_scalar("test/loss_of_draw", float(values["test_loss"]), done)
            writer.add_scalar("train/update_norm", update_norm, done)
            bar.update()
            timed, seconds = done - start - 1, time.perf_counter() - clock
            if timed and seconds > 0:
                rate = size * timed / seconds
                bar.set_postfix_str(f"loss {loss:.4f}, {rate:.1f} samples/s", refresh=False)
                writer.add_scalar("train/patches_per_second", rate, done)

        try:
            if watch and settings.watch_every and start < settings.steps:
                jax.block_until_ready(watch.draw(state))  # compiled here, so that its time is in no epoch
            for count in range(start + 1, settings.steps + 1):
                if stopped == "patience":
                    break
                batch = next(iterator)
                index = batch.pop("index")
                size, names = len(index), sorted({subjects[i] for i in index})
                state, metrics = step(state, batch)
                if watch and settings.watch_every and (count % settings.watch_every == 0 or count == 1):
                    metrics = metrics | {"test_loss": watch.draw(state)}
                pending.append((count, names, metrics))
                if count == start + 1:
                    read_one()  # waits for the compiler, so that its time is not in the rate
                    clock, timed_from = time.perf_counter(), count
                    epoch_clock.start()
                if len(pending) > LAG:
                    read_one()
                last = count == settings.steps
                ends = count in settings.epoch_ends
                validates = bool(settings.validate_every) and (count % settings.validate_every == 0 or last)
                if not (validates or last or ends or count % settings.checkpoint_every == 0):
                    continue
                while pending:  # nothing is saved after a NaN
                    read_one()
                epoch_clock.pause(count - timed_from)
                pause, timed_from = time.perf_counter(), count
                if ends:
                    _end_epoch(count, settings.epoch_ends, epochs, losses, epoch_clock.seconds(count), watch, state)
                    if epochs.rows[-1]["seconds"]:
                        writer.add_scalar("train/epoch_seconds", float(epochs.rows[-1]["seconds"]), len(epochs.rows))
                    epoch_clock.start()
                    bar.set_description(f"{title}, epoch {len(epochs.rows)}/{len(settings.epoch_ends)}")
                if validates and validate is not None:
                    score = validate(state)
                    best = max((s for _, s in validation), default=-np.inf)
                    history.add(count, "validation_iou", score)
                    writer.add_scalar("validation/iou", score, count)
                    if score > best:
                        with Checkpoints(folder / "checkpoints_best", keep=1) as kept:
                            kept.save(state, iterator, description | {"validation_iou": score})
                    if _out_of_patience(validation, settings.patience):
                        stopped = "patience"
                history.flush()
                checkpoints.save(state, iterator, description)
                clock += time.perf_counter() - pause
                epoch_clock.resume()
            while pending:
                read_one()
            checkpoints.save(state, iterator, description)
        finally:
            bar.close()
            history.close()
            writer.close()
        return Fit(state, start, losses, validation, stopped, history.curves["test_loss"], epochs.rows)


def _end_epoch(
    step: int, ends: tuple[int, ...], epochs: Epochs, losses: Curve, seconds: float | None,
    watch: Watch | None, state: TrainState,
) -> None:  # fmt: skip
    number = ends.index(step) + 1
    first = ends[number - 2] if number > 1 else 0
    mean = float(np.mean([v for s, v in losses if first < s <= step]))
    # A small set has many short epochs: looking at the whole test set after each would take longer than training.
    every = math.ceil(len(ends) / MOST_TESTS)
    test = watch.whole(state) if watch and (number % every == 0 or number == len(ends)) else None
    epochs.add(epoch=number, step=step, seconds=seconds, train_loss=mean, test_loss=test)


def _out_of_patience(validation: Sequence[tuple[int, float]], patience: int) -> bool:
    if not patience or len(validation) <= patience:
        return False
    scores = [s for _, s in validation]
    return max(scores[-patience:]) <= max(scores[:-patience])
