"""How long training steps take, without what is done between them."""

import time


class StepClock:
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
