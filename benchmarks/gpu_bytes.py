"""How many bytes and kernels is a training step, as XLA compiles it for an H200, with no GPU at hand?

    pip install --no-deps jax-cuda13-pjrt==VERSION jax-cuda13-plugin==VERSION   # jaxlib's version; no CUDA is needed
    python -m benchmarks.gpu_bytes --noquick --networks=switch8x2 --dtypes=bfloat16 --lowerings=native,folded

XLA compiles for a card that is only described to it, up to machine code; nothing is run or timed. Operands and results
of each kernel, read or written once, are bytes as in benchmarks/kernels.py; those of loops count as often as they
turn. cuDNN's algorithms are not chosen, which changes neither. "Transposed" are kernels that turn an array round and do
nothing else.
"""

import os
import re
from typing import Any

# Choosing an algorithm would run it; the first device is then the CPU, whatever the plug-in looks for.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_autotune_level=0".strip()
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jaxlib
from absl import flags
from jax.experimental import topologies

from benchmarks import flags as common_flags
from benchmarks.kernels import INSTRUCTION, NOTHING, moved_bytes
from benchmarks.measure import environment, write_result
from benchmarks.sizes import Size
from benchmarks.steps import assemble
from tlseg_jax.models.lowering.forms import FORMS
from tlseg_jax.runtime.choose import choose
from tlseg_jax.runtime.errors import InputError

flags.adopt_module_key_flags(common_flags)  # so that --help lists them
LOWERINGS = flags.DEFINE_list("lowerings", ["native", "folded"], "Forms of the step's convolutions.")

H200 = """
gpu_device_info {
  cuda_compute_capability { major: 9 }
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_core: 233472 shared_memory_per_block_optin: 232448
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  memory_bandwidth: 4800000000000 l2_cache_size: 52428800 device_memory_size: 151397597184
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
device_description_str: "NVIDIA H200"
"""
"""What XLA asks of a card (its GpuTargetConfigProto), by the maker's data sheet."""

COMPUTATION = re.compile(r"^(ENTRY )?%([\w.-]+) \(.*\{$")
TURNS = re.compile(r'known_trip_count":\{"n":"(\d+)"')
BODY = re.compile(r"body=%([\w.-]+)")


def described() -> Any:
    """The card, as a device that is compiled for.

    Raises:
      InputError: the plug-in is not installed.
    """
    try:
        return topologies.get_topology_desc("h200", platform="cuda", target_config=H200, topology="1x1x1").devices[0]
    except NotImplementedError:
        version = jaxlib.__version__
        raise InputError(
            "There is no compiler for CUDA here: pip install --no-deps "
            f"jax-cuda13-pjrt=={version} jax-cuda13-plugin=={version} first; no GPU is needed."
        ) from None


def counted(program: str) -> dict[str, int]:
    """Kernels and bytes of a compiled program.

    Returns:
      Of each of "convolutions", "transposed" and "others" the bytes; and "kernels", how many are started.
    """
    moved = moved_bytes(program)
    bodies: dict[str, list[tuple[str, str, str]]] = {}
    entry = inside = ""
    for line in program.splitlines():
        if head := COMPUTATION.match(line):
            inside = head[2]
            bodies[inside] = []
            entry = inside if head[1] else entry
        elif inside and (found := INSTRUCTION.match(line)):
            bodies[inside].append((found[1], found[3], found[4]))
    total = {"convolutions": 0, "transposed": 0, "others": 0, "kernels": 0}

    def walk(computation: str, times: int) -> None:
        for name, operation, rest in bodies[computation]:
            if operation == "while":
                turns = TURNS.search(rest)
                walk(BODY.findall(rest)[0], times * int(turns[1]) if turns else times)
            elif operation not in NOTHING:
                kind = "convolutions" if "__cudnn$conv" in rest else "others"
                kind = "transposed" if name.startswith("wrapped_transpose") else kind
                total[kind] += times * moved[name]
                total["kernels"] += times

    walk(entry, 1)
    return total


def measure(size: Size, dtype: str, lowering: str, device: Any) -> dict[str, Any]:
    """One step's case."""
    built = assemble(size.network, dtype=dtype, lowering=lowering, shape=size.shape, batch=size.batch)
    there = jax.sharding.SingleDeviceSharding(device)
    given = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=there), (built.state, built.batch))
    found = counted(built.step.lower(*given).compile().as_text())  # type: ignore[attr-defined]
    megabytes = {f"MB {kind}": round(found[kind] / 1e6) for kind in ("convolutions", "transposed", "others")}
    case = size.case(dtype) | {"lowering": lowering, "MB": sum(megabytes.values())}
    return case | megabytes | {"kernels": found["kernels"]}


def main() -> None:
    """Compile every network in every form, print the counts and write the JSON."""
    started, device = environment(), described()
    known = {name: name for name in FORMS}
    asked = [choose("lowering", name, known) for name in LOWERINGS.value]
    cases: list[dict[str, Any]] = []
    for size in common_flags.sizes():
        for dtype in common_flags.dtypes():
            for lowering in asked:
                cases.append(measure(size, dtype, lowering, device))
                print("  ".join(f"{k} {v}" for k, v in cases[-1].items() if k not in ("batch", "shape")), flush=True)
                result = {"environment": started, "sizes": common_flags.kind(), "for": "NVIDIA H200", "cases": cases}
                write_result("gpu_bytes", result, common_flags.OUT.value, quiet=True)


if __name__ == "__main__":
    common_flags.run(main)
