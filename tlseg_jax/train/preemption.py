"""Training that is asked to stop does so at the same step on all processes, although one alone may have been asked."""

import itertools

from jax._src import distributed  # its client of the coordination service has no public name

from tlseg_jax import signals
from tlseg_jax.train import processes

_numbers = itertools.count()


class Stop:
    """Whether training stops after a call of the step: the same answer on all processes.

    Whoever was asked says so to the coordination service, and the chief says after which call all stop. With U calls
    under way at most, no process begins a call before the one U + 1 earlier is done on all of them; so one that is
    U + 2 or more after the chief's own can have been begun by nobody before the chief's word is there.
    """

    def __init__(self, ahead: int) -> None:
        """Begin to count calls; every process makes one of these at the same place.

        Args:
          ahead: 2 or more beyond the calls that a process may have under way.
        """
        self._ahead, self._calls = ahead, 0
        self._at: int | None = None
        self._told = False
        self._key = f"tlseg/stop/{next(_numbers)}" if processes.count() > 1 else ""

    def after_call(self) -> bool:
        """Whether to stop here, after one more call."""
        self._calls += 1
        if processes.count() == 1:
            return signals.asked()
        client = distributed.global_state.client
        if signals.asked() and not self._told:
            client.key_value_set(f"{self._key}/asked", signals.asked_by(), allow_overwrite=True)
            self._told = True
        if self._at is None and processes.is_chief():
            if _value(f"{self._key}/asked") is not None:
                self._at = self._calls + self._ahead
                client.key_value_set(f"{self._key}/at", str(self._at))
        elif self._at is None:
            found = _value(f"{self._key}/at")
            self._at = None if found is None else int(found)
        return self._at is not None and self._calls >= self._at

    def at_end(self) -> bool:
        """Whether any process was asked, when all calls are made; all wait for one another here."""
        return any(processes.gather(signals.asked()))


def _value(key: str) -> str | None:
    try:
        return distributed.global_state.client.key_value_try_get(key)  # type: ignore[no-any-return]
    except RuntimeError as e:
        if "NOT_FOUND" not in str(e):
            raise
        return None
