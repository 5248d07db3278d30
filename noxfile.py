"""The checks of .ci/run under each Python that is here: nox, or nox -s lint."""

import nox

nox.options.reuse_existing_virtualenvs = True
PYTHONS = ["3.11", "3.12", "3.13"]
LINT = ("ruff check .", "ruff format --check .", "mypy", "lint-imports")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The quick tests; behind "--" what pytest gets in their place, as in -- -m slow."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session(python=PYTHONS[0])
def lint(session: nox.Session) -> None:
    """Linter, formatter, types and import contracts."""
    session.install("-e", ".[test]")
    for command in LINT:
        session.run(*command.split())


@nox.session(python=PYTHONS[0])
def docs(session: nox.Session) -> None:
    """The site, in a folder that is thrown away."""
    session.install("-e", ".[docs]")
    session.run("mkdocs", "build", "--strict", "--site-dir", session.create_tmp())
