"""What TensorBoard draws of a run."""

import contextlib
import time
from pathlib import Path

from tlseg_jax.runtime import processes
from tlseg_jax.runtime.files import told


class Board:
    """Scalars in an events file of the chief; as a context manager, or closed by `close`.

    Not tensorboardX's own writer: its thread and its last words at the interpreter's end meet a full disk each with a
    traceback.
    """

    def __init__(self, folder: Path, step: int) -> None:
        """Open a new file in `folder`; what earlier ones say of steps after `step` no longer counts.

        Raises:
          InputError: the folder cannot be written.
          OSError: the disk is full.
        """
        self._folder = folder
        self._events = None
        if not processes.is_chief():
            return
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        with told(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._events = EventsWriter(str(folder / "events"))
            begun = SessionLog(status=SessionLog.START)
            self._events.write_event(Event(wall_time=time.time(), step=step, session_log=begun))

    def add(self, name: str, value: float, step: int) -> None:
        """Add a scalar."""
        if self._events is None:
            return
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        with told(self._folder):
            self._events.write_event(Event(wall_time=time.time(), step=step, summary=scalar(name, value)))

    def flush(self) -> None:
        """Hand what was added to the operating system."""
        if self._events is not None:
            with told(self._folder):
                self._events.flush()

    def close(self) -> None:
        """Close the file; what can then not be written is only not drawn."""
        if self._events is not None:
            with contextlib.suppress(OSError):
                self._events.close()
