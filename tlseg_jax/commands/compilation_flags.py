"""The flag of every command that compiles: where its programs are kept for the next start."""

from absl import flags

from tlseg_jax.runtime import allocator
from tlseg_jax.runtime.compilation_cache import MAX_BYTES, OFF, use_compilation_cache

COMPILATION_CACHE = flags.DEFINE_string(
    "compilation_cache",
    None,
    f"Folder of compiled programs, which only you should be able to write; '{OFF}': keep none; none given: "
    f"tlseg_jax/xla in your cache folder, at most {MAX_BYTES / 2**30:g} GiB.",
)


def set_up_jax() -> None:
    """Before anything is computed: where programs run, and that those compiled are kept where the flag says.

    Where they cannot be kept that is said, and all goes on.
    """
    allocator.compute_in_caller()
    note = use_compilation_cache(COMPILATION_CACHE.value)
    if note:
        print(note, flush=True)
