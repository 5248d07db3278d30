"""Training that is asked to stop does so at the same step on all processes, although one alone may have been asked."""

import contextlib
import itertools
import threading
from collections.abc import Callable
from typing import Any

from jax._src import distributed  # its client of the coordination service has no public name

from tlseg_jax.runtime import processes, signals

LOOK = 0.5
"""Seconds between looks for whether any process was asked."""


class Stop:
    """Whether training stops after a call of the step: the same answer on all processes.

    No collective, as the devices may be busy for long, and a process that waits for another in one could not answer:
    a thread of each process looks for whether any was asked. It then holds its process before the next call, tells the
    others to which call this one is committed, waits for what they tell, and lets go: all stop after the last of those.
    """

    def __init__(
        self,
        key: str,
        count: int,
        index: int,
        service: Any,
        asked: Callable[[], bool] = signals.asked,
        look: float = LOOK,
    ) -> None:
        """Be committed to the first call.

        Args:
          key: of this training, the same in all processes.
          service: what they tell one another by: JAX's coordination service, text by keys; None with one process.
          look: seconds between looks.
        """
        self._key, self._count, self._index, self._service = key, count, index, service
        self._asked, self._look = asked, look
        self._committed, self._last = 1, 1 << 62
        self._lock, self._ended = threading.Lock(), threading.Event()
        if service is not None:
            threading.Thread(target=self._watch_for, args=(service,), daemon=True, name="tlseg-stop").start()

    def after_call(self) -> bool:
        """Whether to stop here, after one more call; else another is made."""
        if self._service is None:
            return self._asked()
        with self._lock:
            if self._committed >= self._last:
                return True
            self._committed += 1
            return False

    def at_end(self) -> bool:
        """Whether any process was asked, when all calls are made; all wait for one another here."""
        found = any(processes.gather(self._asked()))
        self.close()
        return found

    def close(self) -> None:
        """Look no more."""
        self._ended.set()

    def _watch_for(self, service: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the service's process is gone, and with it the run
            self._watch(service)

    def _watch(self, service: Any) -> None:
        while not self._ended.wait(self._look):
            if self._asked():
                service.key_value_set(f"{self._key}/asked", "", allow_overwrite=True)
            if _value(service, f"{self._key}/asked") is None:
                continue
            with self._lock:
                service.key_value_set(f"{self._key}/{self._index}", str(self._committed))
                told: list[int] = []
                while len(told) < self._count and not self._ended.is_set():
                    found = _value(service, f"{self._key}/{len(told)}")
                    if found is None:
                        self._ended.wait(self._look / 10)
                    else:
                        told.append(int(found))
                self._last = max(told, default=self._last)
            return


_numbers = itertools.count()


def stop() -> Stop:
    """For a training of this run; every process calls this at the same place."""
    client = distributed.global_state.client if processes.count() > 1 else None
    return Stop(f"tlseg/stop/{next(_numbers)}", processes.count(), processes.index(), client)


def _value(service: Any, key: str) -> str | None:
    try:
        return service.key_value_try_get(key)
    except RuntimeError as e:
        if "NOT_FOUND" not in str(e):
            raise
        return None
