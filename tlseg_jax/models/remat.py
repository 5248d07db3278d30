"""How much of the forward pass is kept for the backward pass, and how much is computed again."""

from typing import Literal

Remat = Literal["none", "block", "full"]
"""Rematerialisation policies, from fastest to smallest:

none   every activation that a gradient needs is kept.
block  of each block of convolutions only the input is kept; the rest is computed again.
full   each resolution level with all that is coarser is computed again from its input, level within level:
       nothing but the network's input is kept from the forward pass (after Chen et al. 2016, section 4.3).
"""
