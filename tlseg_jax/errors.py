"""The one exception that a user is meant to read."""


class InputError(Exception):
    """A fault in what the user gave: one sentence with the file, the fault and the remedy.

    Commands print the sentence and exit with code 2; anything else that escapes is a bug of ours.
    """


class Preempted(Exception):
    """The machine is being taken away, or someone asked us to stop: what was done is saved.

    The message is one sentence; commands print it and exit with code 75 (EX_TEMPFAIL of sysexits.h), on which a
    scheduler may start the same command again.
    """
