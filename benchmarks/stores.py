"""The flag of the benchmarks that read prepared data, defined once, so that several can be imported together."""

from absl import flags

STORES = flags.DEFINE_list("stores", None, "Folders of prepared data sets.")
