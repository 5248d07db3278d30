"""The flags that every benchmark has, defined once, so that several can be imported together."""

from absl import flags

ROUNDS = flags.DEFINE_integer("rounds", 5, "Timed rounds after one to warm up.", lower_bound=1)
OUT = flags.DEFINE_string("out", None, "JSON file to write; none: only print.")
