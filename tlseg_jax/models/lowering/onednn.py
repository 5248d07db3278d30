"""3x3 and 3x3x3 convolution by oneDNN, which jaxlib's CPU builds hold and XLA:CPU does not use by itself.

XLA:CPU can run a custom call named `__onednn$convolution`; its own rewriting of convolutions into that call is
switched off in jaxlib's builds, so the call is written into the program here. benchmarks/conv_lowering.py
measures what that gains: on two cores a 3x3x3 convolution takes a quarter to a third of the time of the next best form.

The call's settings are an internal format of XLA (`OneDnnConvolutionConfig`): a version that reads them otherwise would
end the process. So on a version that is not known (`choice`) it is first tried in a process of its own (`apart`).

A program with it has no serialised form, and however the call is written it could have none. By its name XLA:CPU's
`ThunkEmitter` makes it a `OneDnnOpThunk` (`EmitOneDnnOpThunk`), of which `ThunkSerDesRegistry` knows nothing; but that
calls itself a custom call's, so `ThunkSequenceSerDesProtobuf::ToProto`, from `CpuCompiler::Export`, hands it to
`CustomCallThunkToProto`. That reads a target's name where there is none and fails in allocating it: `std::bad_alloc`
(jaxlib 0.10.2, by a debugger that stopped where it is thrown). Under another name, or by the interface of
`jax.ffi.register_ffi_target`, a library of our own would have to hold the convolution: jaxlib registers none that does.
A step is therefore compiled in two programs (`train.step`), of which the cache keeps the other.
"""

import functools
import json
import platform
import sys
from typing import Any

import jax

DTYPES = frozenset(("float32", "bfloat16"))
"""What the call takes."""

TARGET = "__onednn$convolution"
STATUS_RETURNING = 2
"""The version of XLA's custom-call interface that takes a `backend_config` as text."""


def lacking() -> str:
    """What this machine lacks for its jaxlib to hold oneDNN; "" for nothing."""
    return "" if sys.platform == "linux" and platform.machine() in ("x86_64", "AMD64") else "it is for x86-64 Linux"


def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolution of stride 1 with zero padding by half the kernel, no bias, no gradient of its own.

    Args:
      x: (batch, *sides, channels), two or three sides, float32 or bfloat16.
      kernel: (*3, channels, features), as many threes as sides, of the type of `x`.

    Returns:
      (batch, *sides, features).
    """
    out = jax.ShapeDtypeStruct((*x.shape[:-1], kernel.shape[-1]), x.dtype)
    call = jax.ffi.ffi_call(
        TARGET,
        out,
        custom_call_api_version=STATUS_RETURNING,
        legacy_backend_config=_config(x.ndim),
        vmap_method="sequential",
    )
    return call(x, kernel)


@functools.cache
def _config(dims: int) -> str:
    """The call's settings as XLA's JSON, in which whole numbers of 64 bits are text."""
    sides = dims - 2

    def same(value: int) -> list[str]:
        return [str(value)] * sides

    def data() -> dict[str, Any]:
        layout = {"batch_dim": "0", "feature_dim": str(dims - 1), "spatial_dims": [str(i + 1) for i in range(sides)]}
        return {"dims": str(dims), "data": layout}

    layout = {
        "input_feature_dim": str(dims - 2),
        "output_feature_dim": str(dims - 1),
        "spatial_dims": [str(i) for i in range(sides)],
    }
    config = {
        "dims": str(dims),
        "input": data(),
        "kernel": {"dims": str(dims), "filter": layout},
        "output": data(),
        "window": {
            "size": same(3),
            "pad_left": same(1),
            "pad_right": same(1),
            "strides": same(1),
            "window_dilations": same(1),
        },
        "feature_groups": "1",
    }
    return json.dumps({"onednn_conv_config": config})
