"""The examples in the docstrings of `tlseg_jax.api` run, one after the other, on small drawn heads."""

import ast
import doctest
from collections.abc import Iterator
from pathlib import Path

import pytest

from tlseg_jax import api
from tlseg_jax.runtime.messages import quiet

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compile")]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where all of them work: each takes up what the one before has made."""
    yield tmp_path_factory.mktemp("api")


def documented() -> list[str]:
    """The functions of the page, in its order."""
    tree = ast.parse(Path(api.__file__).read_text(encoding="utf-8"))
    names = dict.fromkeys(n.name for n in tree.body if isinstance(n, ast.FunctionDef))
    return [n for n in names if n in api.__all__ and n != "view"]


@pytest.mark.parametrize("name", documented())
def test_the_example_of(name: str, here: Path) -> None:
    (example,) = doctest.DocTestFinder(recurse=False).find(
        getattr(api, name), name, module=api, extraglobs={"here": here}
    )
    assert example.examples
    with quiet():
        results = doctest.DocTestRunner(verbose=False).run(example)
    assert results.failed == 0
