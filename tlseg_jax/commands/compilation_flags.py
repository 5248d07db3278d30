"""The flag of every command that compiles: where its programs are kept for the next start."""

from absl import flags

from tlseg_jax.runtime import compilation_cache
from tlseg_jax.runtime.compilation_cache import MAX_BYTES, OFF

COMPILATION_CACHE = flags.DEFINE_string(
    "compilation_cache",
    None,
    f"Folder of compiled programs, which only you should be able to write; '{OFF}': keep none; none given: "
    f"tlseg_jax/xla in your cache folder, at most {MAX_BYTES / 2**30:g} GiB.",
)


def set_up_jax() -> None:
    """Before anything is computed: programs are kept where the flag says; where they cannot be, that is said."""
    note = compilation_cache.set_up_jax(COMPILATION_CACHE.value)
    if note:
        print(note, flush=True)
