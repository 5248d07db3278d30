"""The one exception that a user is meant to read."""


class InputError(Exception):
    """A fault in what the user gave: one sentence with the file, the fault and the remedy.

    Commands print the sentence and exit with code 2; anything else that escapes is a bug of ours. A setting stands in
    it between backquotes, as in `n` or `n=4`, of which a command makes its flag.
    """


class InUse(InputError):
    """Another process holds the folder, and is alive."""


class Preempted(KeyboardInterrupt):
    """The machine is being taken away, or someone asked us to stop: what was done is saved.

    It can be raised at any line, a library's too; as an interrupt, which is no `Exception`, none takes it for a fault
    of its own. JAX made "Unable to initialize backend" of it, and our own readers a damaged file.

    The message is one sentence; commands print it and exit with code 75 (EX_TEMPFAIL of sysexits.h), on which a
    scheduler may start the same command again.

    Attributes:
      everywhere: every process of the run raises it, at the same place.
    """

    def __init__(self, sentence: str, *, everywhere: bool = False) -> None:
        """Say so in one sentence."""
        super().__init__(sentence)
        self.everywhere = everywhere
