"""What commands are told that is no part of the work itself: which run, of which data."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Named:
    """A run and data that are there.

    Attributes:
      run: folder of a run that has trained.
      dataset: a data set's name or a TOML file.
      store: folder of the prepared data sets.
    """

    run: str
    dataset: str
    store: str
