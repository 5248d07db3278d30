"""The training loop: no host sync a step, losses read a few steps late, NaN named, resumable exactly."""

import collections
import csv
import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from tqdm import tqdm

from tlseg_jax.errors import InputError
from tlseg_jax.train.checkpoint import Checkpoints
from tlseg_jax.train.state import TrainState
from tlseg_jax.train.step import Step

if TYPE_CHECKING:  # a machine that only measures steps may have no grain
    import grain

LAG = 8
"""Steps that may be under way before the oldest loss is read."""


@dataclasses.dataclass(frozen=True)
class LoopSettings:
    """How long and how often.

    Attributes:
      steps: the most steps.
      checkpoint_every: steps between checkpoints.
      validate_every: steps between validations; 0 never validates.
      patience: validations without a better score before stopping; 0 never stops early.
    """

    steps: int
    checkpoint_every: int = 200
    validate_every: int = 0
    patience: int = 0


@dataclasses.dataclass(frozen=True, eq=False)
class Fit:
    """What training ended with.

    Attributes:
      state: the last state.
      resumed_at: the step that this call went on from; 0 where it started.
      losses: (step, loss) of the whole run, earlier calls included.
      validation: (step, score).
      stopped: why it ended: "steps" or "patience".
    """

    state: TrainState
    resumed_at: int
    losses: list[tuple[int, float]]
    validation: list[tuple[int, float]]
    stopped: str


class _History:
    """history.csv: (step, loss, validation) rows, appended; rows after a resumed step are dropped."""

    def __init__(self, path: Path, resumed_at: int) -> None:
        self.losses: list[tuple[int, float]] = []
        self.validation: list[tuple[int, float]] = []
        if path.exists() and resumed_at:
            with path.open(newline="") as f:
                for row in csv.reader(f):
                    # A killed run may leave half a line at the end; it is of a later step anyway.
                    if len(row) != 3 or not row[0].isdigit() or int(row[0]) > resumed_at:
                        continue
                    for text, kept in ((row[1], self.losses), (row[2], self.validation)):
                        if text:
                            kept.append((int(row[0]), float(text)))
        # Written beside: a kill before the next flush must not lose the rows that were there.
        beside = path.with_name(f".{path.name}.tmp")
        self._file = beside.open("w", newline="")
        self._rows = csv.writer(self._file)
        self._rows.writerow(["step", "loss", "validation_iou"])
        rows: list[tuple[Any, ...]] = [(s, v, "") for s, v in self.losses]
        rows += [(s, "", v) for s, v in self.validation]
        rows.sort(key=lambda r: int(r[0]))
        self._rows.writerows(rows)
        self._file.flush()
        os.fsync(self._file.fileno())
        beside.replace(path)

    def add_loss(self, step: int, loss: float) -> None:
        self.losses.append((step, loss))
        self._rows.writerow([step, loss, ""])

    def add_validation(self, step: int, score: float) -> None:
        self.validation.append((step, score))
        self._rows.writerow([step, "", score])

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


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
        history = _History(folder / "history.csv", start)
        writer = SummaryWriter(str(folder / "tensorboard"), purge_step=start)
        # A finished or early-stopped run that is called again has nothing to do.
        bar = tqdm(total=settings.steps, initial=start, desc=title, unit="step", disable=not progress, mininterval=1.0)
        clock = time.perf_counter()
        size = 0
        stopped = "patience" if _out_of_patience(history.validation, settings.patience) else "steps"

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
            history.add_loss(done, loss)
            writer.add_scalar("train/loss", loss, done)
            writer.add_scalar("train/update_norm", update_norm, done)
            bar.update()
            timed, seconds = done - start - 1, time.perf_counter() - clock
            if timed and seconds > 0:
                rate = size * timed / seconds
                bar.set_postfix_str(f"loss {loss:.4f}, {rate:.1f} patches/s", refresh=False)
                writer.add_scalar("train/patches_per_second", rate, done)

        try:
            for count in range(start + 1, settings.steps + 1):
                if stopped == "patience":
                    break
                batch = next(iterator)
                index = batch.pop("index")
                size, names = len(index), sorted({subjects[i] for i in index})
                state, metrics = step(state, batch)
                pending.append((count, names, metrics))
                if count == start + 1:
                    read_one()  # waits for the compiler, so that its time is not in the rate
                    clock = time.perf_counter()
                if len(pending) > LAG:
                    read_one()
                last = count == settings.steps
                validates = bool(settings.validate_every) and (count % settings.validate_every == 0 or last)
                if not (validates or last or count % settings.checkpoint_every == 0):
                    continue
                while pending:  # nothing is saved after a NaN
                    read_one()
                if validates and validate is not None:
                    pause = time.perf_counter()
                    score = validate(state)
                    best = max((s for _, s in history.validation), default=-np.inf)
                    history.add_validation(count, score)
                    writer.add_scalar("validation/iou", score, count)
                    if score > best:
                        with Checkpoints(folder / "checkpoints_best", keep=1) as kept:
                            kept.save(state, iterator, description | {"validation_iou": score})
                    if _out_of_patience(history.validation, settings.patience):
                        stopped = "patience"
                    clock += time.perf_counter() - pause
                history.flush()
                checkpoints.save(state, iterator, description)
            while pending:
                read_one()
            checkpoints.save(state, iterator, description)
        finally:
            bar.close()
            history.close()
            writer.close()
        return Fit(state, start, history.losses, history.validation, stopped)


def _out_of_patience(validation: Sequence[tuple[int, float]], patience: int) -> bool:
    if not patience or len(validation) <= patience:
        return False
    scores = [s for _, s in validation]
    return max(scores[-patience:]) <= max(scores[:-patience])
