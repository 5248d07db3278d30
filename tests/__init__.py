"""`check` checks array shapes and types of the library at each call, in the tests only (pyproject.toml)."""

from beartype import BeartypeConf, beartype

# An int will do for a float, as the type checker has it.
check = beartype(conf=BeartypeConf(is_pep484_tower=True))
