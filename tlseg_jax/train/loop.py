"""The training loop: no host sync a step, losses read a few steps late, NaN named, resumable exactly."""

import collections
import concurrent.futures
import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from tqdm import tqdm

from tlseg_jax.checkpoints.checkpoint import KEEP, Checkpoints
from tlseg_jax.checkpoints.state import TrainState
from tlseg_jax.runtime import preemption, processes, signals
from tlseg_jax.runtime.errors import InputError, Preempted
from tlseg_jax.train.board import Board
from tlseg_jax.train.dispatch import Dispatch, Metrics
from tlseg_jax.train.history import Curve, Epochs, History
from tlseg_jax.train.trace import Trace

if TYPE_CHECKING:  # a machine that only measures steps may have no grain
    import grain

LAG = 8
"""Steps that may be under way before the oldest loss is read: also how many batches are sent ahead."""

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

    def validates(self, step: int) -> bool:
        """Whether there is a validation after this step."""
        return bool(self.validate_every) and (step % self.validate_every == 0 or step == self.steps)

    def saves(self, step: int) -> bool:
        """Whether there is a checkpoint after this step."""
        return step in (self.steps, *self.epoch_ends) or step % self.checkpoint_every == 0 or self.validates(step)

    def next_look(self, step: int, watches: bool) -> int:
        """The first step after this one whose state the host needs: to save, to validate or for a test loss."""
        every = [self.checkpoint_every, *([self.validate_every] if self.validate_every else [])]
        if watches:
            every.append(self.watch_every)
        later = [self.steps, *(step - step % e + e for e in every), *(e for e in self.epoch_ends if e > step)]
        return 1 if watches and step == 0 else min(later)


@dataclasses.dataclass(frozen=True, eq=False)
class Fit:
    """What training ended with.

    Attributes:
      state: the last state.
      resumed_at: the step that this call went on from; 0 where it started.
      losses: (step, loss) of the whole run, earlier calls included.
      validation: (step, score).
      stopped: why it ended: "steps", "patience" or, before it began, "dry run".
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


class _Clock:
    """Seconds of the steps, without compiling, validating and saving.

    An epoch some of whose steps are not timed, since a program was compiled in them or the run was resumed in the
    middle of it, counts those at the mean of its others.
    """

    def __init__(self) -> None:
        self._epoch, self._before = (0, 0.0), (0, 0.0)
        self._from: int | None = None

    def go(self, step: int) -> None:
        """Time from here, after so many steps."""
        self._from, self._since = step, time.perf_counter()

    def stop(self, step: int) -> None:
        """Time to here, after so many steps; all of them are done."""
        self._epoch, self._from = self._now(step), None

    def rate(self, step: int) -> float | None:
        """Steps a second, as far as step `step`; None before any was timed."""
        steps, seconds = (a + b for a, b in zip(self._before, self._now(step), strict=True))
        return steps / seconds if steps and seconds > 0 else None

    def end_epoch(self, steps: int) -> float | None:
        """Seconds of the epoch, which has so many steps; None where none was timed. Another one begins."""
        timed, seconds = self._epoch
        self._before = (self._before[0] + timed, self._before[1] + seconds)
        self._epoch = (0, 0.0)
        return round(seconds / timed * steps, 3) if timed else None

    def _now(self, step: int) -> tuple[int, float]:
        if self._from is None or step <= self._from:
            return self._epoch
        return self._epoch[0] + step - self._from, self._epoch[1] + time.perf_counter() - self._since


def fit(
    dispatch: Dispatch,
    state: TrainState,
    iterator: "grain.DatasetIterator",
    subjects: Sequence[str],
    settings: LoopSettings,
    folder: Path,
    description: dict[str, Any],
    *,
    validate: Callable[[TrainState], float] | None = None,
    watch: Watch | None = None,
    trace: Trace | None = None,
    meanwhile: Callable[[], None] | None = None,
    keep: int = KEEP,
    say: Callable[[str], None] = print,
    progress: bool = True,
    title: str = "training",
) -> Fit:
    """Train until `settings.steps`, or until validation stops improving; goes on from a checkpoint.

    Of several processes each makes this call, with its own rows of the batches, and the chief writes and draws.

    Steps in one dispatch end where the host has to look at the state (`LoopSettings.next_look`), so that the results
    are those of single steps.

    Args:
      dispatch: the training step.
      state: the first state; replaced by the newest checkpoint's where `folder` has one.
      iterator: of batches, or of places where `dispatch` has a cache.
      subjects: what the batches' "index" counts, for messages.
      settings: length and intervals.
      folder: the run folder.
      description: saved with each checkpoint.
      validate: state -> score, larger is better.
      watch: test losses; on the draw every `settings.watch_every` steps, on all at epochs' ends (`MOST_TESTS`).
      trace: to record some steps with.
      meanwhile: called once, while the device is at the first step.
      keep: the newest checkpoints that stay, besides the best by validation.
      say: prints a line, such as of a checkpoint that is damaged.
      progress: whether to draw a bar.
      title: of the bar.

    Raises:
      InputError: the loss became NaN or infinite: names the step and the subjects of its batch.
      Preempted: a signal asked for it (`signals`); what was done is saved.
    """
    # Calls under way: their last step, whose patches each step saw, the metrics, and the test loss after them.
    pending: collections.deque[tuple[int, list[list[str]], Metrics, jax.Array | None]] = collections.deque()
    with (
        signals.waiting(), Checkpoints(folder / "checkpoints", keep, say) as checkpoints,
        trace or contextlib.nullcontext(),
    ):  # fmt: skip
        state = checkpoints.restore(state, iterator)
        start = int(state.step)
        history = History(folder / "history.csv", start)
        losses, validation = history.curves["loss"], history.curves["validation_iou"]
        epochs = Epochs(folder / "epochs.csv", start)
        board = Board(folder / "tensorboard", start)
        # A finished or early-stopped run that is called again has nothing to do.
        bar = tqdm(
            total=settings.steps, initial=start, desc=title, unit="step", mininterval=1.0,
            disable=not (progress and processes.is_chief()),
            leave=None,  # below a bar of many runs it goes when its run is done
        )  # fmt: skip
        clock, compiled, size = _Clock(), set[tuple[int, int]](), 0
        stop = preemption.stop()
        stopped = "patience" if _out_of_patience(validation, settings.patience) else "steps"

        def read_oldest() -> None:
            last, seen, metrics, test = pending.popleft()
            values = [np.atleast_1d(metrics[k]) for k in ("loss", "update_norm")]
            for i, names in enumerate(seen):
                read_one(last - len(seen) + 1 + i, names, *(float(v[i]) for v in values))
            if test is not None:
                history.add(last, "test_loss", float(test))
                board.add("test/loss_of_draw", float(test), last)
            bar.update(len(seen))
            rate = clock.rate(last)
            if rate is not None:
                bar.set_postfix_str(f"loss {losses[-1][1]:.4f}, {size * rate:.1f} samples/s", refresh=False)
                board.add("train/patches_per_second", size * rate, last)

        def read_one(done: int, names: list[str], loss: float, update_norm: float) -> None:
            # A finite loss may still have had a gradient that is not.
            if not np.isfinite(loss) or not np.isfinite(update_norm):
                what = f"loss became {loss}" if not np.isfinite(loss) else f"update became {update_norm}"
                # All processes have the same loss, and each knows its own rows of the batch only.
                names = sorted({name for part in processes.gather(names) for name in part})
                raise InputError(
                    f"The {what} at step {done}, on {', '.join(names)}: lower --learning_rate, "
                    f"or look at those scans; no checkpoint in {folder} is from after it."
                )
            history.add(done, "loss", loss)
            board.add("train/loss", loss, done)
            board.add("train/update_norm", update_norm, done)

        def read_all() -> None:
            while pending:
                read_oldest()

        try:
            watches = watch is not None and settings.watch_every > 0
            if watch and watches and start < settings.steps:
                jax.block_until_ready(watch.draw(state))  # compiled here, so that its time is in no epoch
            count = start
            while count < settings.steps and stopped != "patience":
                steps = dispatch.length(settings.next_look(count, watches) - count, count)
                batches = [next(iterator) for _ in range(steps)]
                seen = [sorted({subjects[i] for i in b["index"]}) for b in batches]
                size = len(batches[0]["index"]) * processes.count()
                if trace:
                    trace.before(state)
                program = (steps, dispatch.stage(count))
                new = program not in compiled
                if new:  # its compiler is waited for, so that it is in no rate
                    read_all()
                    clock.stop(count)
                if meanwhile and count == start:
                    # The compiler leaves the interpreter alone, so that counting FLOPs beside it costs nothing.
                    with concurrent.futures.ThreadPoolExecutor(1) as beside:
                        first = beside.submit(dispatch, state, batches, count)
                        meanwhile()
                    state, metrics = first.result()
                else:
                    state, metrics = dispatch(state, batches, count)
                count += steps
                looks = watch and watches and (count % settings.watch_every == 0 or count == 1)
                pending.append((count, seen, metrics, watch.draw(state) if watch and looks else None))
                if trace:
                    trace.after(steps, state)
                if new:
                    read_all()
                    compiled.add(program)
                    clock.go(count)
                if len(pending) > max(1, LAG // dispatch.most):
                    read_oldest()
                stopping = stop.after_call()
                if not settings.saves(count) and not stopping:
                    continue
                read_all()  # nothing is saved after a NaN
                clock.stop(count)
                if count in settings.epoch_ends:
                    _end_epoch(count, settings.epoch_ends, epochs, losses, clock, watch, state)
                    if epochs.rows[-1]["seconds"]:
                        board.add("train/epoch_seconds", float(epochs.rows[-1]["seconds"]), len(epochs.rows))
                    bar.set_description(f"{title}, epoch {len(epochs.rows)}/{len(settings.epoch_ends)}")
                score: float | None = None
                if validate is not None and settings.validates(count):
                    score = validate(state)
                    history.add(count, "validation_iou", score)
                    board.add("validation/iou", score, count)
                    if _out_of_patience(validation, settings.patience):
                        stopped = "patience"
                history.flush()
                board.flush()
                checkpoints.save(state, iterator, description, score)
                if stopping:
                    break
                clock.go(count)
            if stop.at_end():
                checkpoints.close()
                raise Preempted(
                    f"Stopped by {signals.asked_by()} after step {count} of {settings.steps}, which is saved in "
                    f"{folder}: run the same command again to go on from there.", everywhere=True,
                )  # fmt: skip
        finally:
            stop.close()
            bar.close()
            board.close()
            history.close()
        return Fit(state, start, losses, validation, stopped, history.curves["test_loss"], epochs.rows)


def _end_epoch(
    step: int, ends: tuple[int, ...], epochs: Epochs, losses: Curve, clock: _Clock, watch: Watch | None,
    state: TrainState,
) -> None:  # fmt: skip
    number = ends.index(step) + 1
    first = ends[number - 2] if number > 1 else 0
    mean = float(np.mean([v for s, v in losses if first < s <= step]))
    # A small set has many short epochs: looking at the whole test set after each would take longer than training.
    every = math.ceil(len(ends) / MOST_TESTS)
    test = watch.whole(state) if watch and (number % every == 0 or number == len(ends)) else None
    epochs.add(epoch=number, step=step, seconds=clock.end_epoch(step - first), train_loss=mean, test_loss=test)


def _out_of_patience(validation: Sequence[tuple[int, float]], patience: int) -> bool:
    if not patience or len(validation) <= patience:
        return False
    scores = [s for _, s in validation]
    return max(scores[-patience:]) <= max(scores[:-patience])
