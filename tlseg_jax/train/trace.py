"""A trace of a few training steps for a profiler."""

from pathlib import Path

import jax

from tlseg_jax.runtime.messages import log

WARM_UP = 2
"""Steps before the trace: the first waits for the compiler."""

TRACED = 4
"""Steps that the trace holds at least."""


class Trace:
    """Records steps 3 to 6 of a call, or as many more as one dispatch does; use it as a context manager."""

    def __init__(self, folder: Path) -> None:
        """Write below `folder`."""
        self._folder = folder
        self._done, self._first, self._running = 0, 0, False

    def __enter__(self) -> "Trace":
        return self

    def __exit__(self, *_: object) -> None:
        """End a trace that the run was too short for."""
        if self._running:
            self._stop()
        elif self._done <= WARM_UP:
            log.info(f"`profile`: no trace, since this call did {self._done} step(s) and the first {WARM_UP} warm up.")

    def before(self, pending: object) -> None:
        """Called before each dispatch with what the device may still be at, to wait for."""
        if not self._running and not self._first and self._done >= WARM_UP:
            jax.block_until_ready(pending)
            self._folder.mkdir(parents=True, exist_ok=True)
            jax.profiler.start_trace(str(self._folder), create_perfetto_trace=True)
            self._running, self._first = True, self._done + 1

    def after(self, steps: int, pending: object) -> None:
        """Called after each dispatch of so many steps with what it gave."""
        self._done += steps
        if self._running and self._done - self._first + 1 >= TRACED:
            jax.block_until_ready(pending)
            self._stop()

    def _stop(self) -> None:
        jax.profiler.stop_trace()
        self._running = False
        newest = max((self._folder / "plugins" / "profile").iterdir())
        log.info(
            f"trace of steps {self._first} to {self._done} of this call: {newest}. Open its perfetto_trace.json.gz "
            f"at https://ui.perfetto.dev, or run 'tensorboard --logdir={self._folder}' where tensorboard and "
            "tensorboard-plugin-profile are installed."
        )
