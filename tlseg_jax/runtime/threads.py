"""One ITK thread: several add up in no fixed order, and the last digits then differ from run to run."""

import contextlib
from collections.abc import Iterator

import SimpleITK as sitk


@contextlib.contextmanager
def one_itk_thread() -> Iterator[None]:
    """Within it, ITK's filters use one thread, as a filter's own setting does not reach its parts.

    Scans are prepared in parallel processes, so nothing is lost by it.
    """
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
