"""The one exception that a user is meant to read."""


class InputError(Exception):
    """A fault in what the user gave: one sentence with the file, the fault and the remedy.

    Commands print the sentence and exit with code 2; anything else that escapes is a bug of ours.
    """
