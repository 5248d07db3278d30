"""In which shares samples are drawn. Apart from what reads them, as settings name it on machines without grain."""

from typing import Literal

Sampling = Literal["all", "balanced"]
"""Each slice once an epoch, or those with the target as often as those without; of patches at random places evenly, or
every second one on a structure."""
