"""The process of `apart`: measures one form of convolution.

python -m tlseg_jax.models.lowering.trial < '{"form": "module:function", "shapes": [...], "dtype": "float32"}'
"""

import importlib
import json
import sys

from tlseg_jax.models.lowering.measure import ConvShape, measured_here


def main() -> None:
    """Read what is asked on stdin and print the answer."""
    asked = json.load(sys.stdin)
    module, _, name = asked["form"].partition(":")
    convolve = getattr(importlib.import_module(module), name)
    shapes = [ConvShape(tuple(s["image"]), tuple(s["kernel"]), s["count"]) for s in asked["shapes"]]
    print(json.dumps(measured_here(convolve, shapes, asked["dtype"])))


if __name__ == "__main__":
    main()
