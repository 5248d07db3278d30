"""What processes tell one another, and how one ends the others: `python -m tests.train.cluster_talk [HOW [PROCESS]]`.

Each prints what it was told as one line of JSON. Then, with HOW, process PROCESS fails in that way while the others
wait for it: "input", "bug", "stop" or "killed"; "wait" in place of a device has them wait in the service.
"""

import json
import os
import signal
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from tlseg_jax.commands import cli, cluster_flags
from tlseg_jax.runtime import processes
from tlseg_jax.runtime.errors import InputError, Preempted


def main(given: Sequence[str]) -> None:
    """Talk, and fail."""
    cluster_flags.start()
    here = processes.index()
    odd = np.array([-0.0, 1e-45, np.nan, np.inf], np.float32)
    arrays = {"a": odd if here == 0 else np.zeros_like(odd), "b": np.full((2, 3), here, np.int8)}
    shared = processes.share_arrays(arrays)

    def fault() -> str:
        if here == 1:
            raise InputError("The scan x is empty.")
        return "fine"

    told: dict[str, Any] = {
        "count": processes.count(),
        "devices": [jax.device_count(), jax.local_device_count()],
        "share": processes.share({"from": here}),
        "gather": processes.gather([here, 0.1 + here]),
        "chief": processes.chief(fault),
        "divide": processes.divide(range(5), lambda some: [[i, here] for i in some]),
        "arrays": {k: [str(v.dtype), v.shape, v.tobytes().hex()] for k, v in shared.items()},
    }
    try:
        processes.each(fault)
    except InputError as e:
        told["each"] = str(e)
    print(json.dumps(told), flush=True)
    if not given:
        return
    how, who = given[0], int(given[1])
    if here == who:
        if how == "input":
            raise InputError("The scan y is empty: copy it again.")
        if how == "bug":
            raise KeyError("of ours")
        if how == "stop":
            raise Preempted("Stopped.")
        os.kill(os.getpid(), signal.SIGKILL)
    if "service" in given:
        processes.wait("for ever")
    multihost_utils.process_allgather(np.int32(here))


if __name__ == "__main__":
    cli.run_command(main)
