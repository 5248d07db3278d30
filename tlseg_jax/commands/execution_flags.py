"""The flags of training that change its speed and memory: part of every command that trains."""

from tlseg_jax.commands import compilation_flags, flags
from tlseg_jax.train.execution import Execution

EXECUTION = flags.define(Execution, defaults={"parallel": None})
flags.adopt(compilation_flags)
