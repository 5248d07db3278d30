"""A form of convolution measured in a process of its own, which it may end without ending ours."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import jax

from tlseg_jax.models.lowering.forms import Convolve

TRIAL = "tlseg_jax.models.lowering.trial"

PATIENCE = 180
"""Seconds that such a process has."""


def tried_apart(convolve: Convolve, shapes: Sequence[Any], dtype: str) -> dict[str, Any]:
    """What `measure.measured_here` gives, by another process; that it ended or hung is a fault of the form."""
    asked = {
        "form": f"{convolve.__module__}:{convolve.__qualname__}",
        "shapes": [dataclasses.asdict(s) for s in shapes],
        "dtype": dtype,
    }
    more = {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "JAX_PLATFORMS": jax.default_backend(),
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # a GPU's memory is ours already
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", TRIAL],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            env=os.environ | more,
            timeout=PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as e:
        return {"seconds": None, "fault": f"a process for it did not come to an end ({type(e).__name__})"}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1][:200]
        return {"seconds": None, "fault": f"it ended its process with code {done.returncode} ({last})"}
    return json.loads(done.stdout.strip().splitlines()[-1])  # type: ignore[no-any-return]
