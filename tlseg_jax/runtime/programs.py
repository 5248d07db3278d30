"""Compiled training steps that several runs share: all that differ only in their data, seed and start."""

import threading
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

Made = TypeVar("Made")


class Programs:
    """What was built once, by all that it depends on. One object for all runs that are to share; of any threads."""

    def __init__(self) -> None:
        self._made: dict[Hashable, Any] = {}
        self._lock = threading.RLock()

    def get(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """What `make` gave for this key the first time; it is called once, and again if it raised."""
        with self._lock:
            if key not in self._made:
                self._made[key] = make()
            return self._made[key]  # type: ignore[no-any-return]

    def holds(self, key: Hashable) -> bool:
        """Whether something was made for this key."""
        return key in self._made
