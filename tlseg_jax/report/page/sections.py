"""What a report is made of, whatever it is shown as: sections of text, figures and tables."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from tlseg_jax.report.page.viewer import Viewer

T = TypeVar("T")

TableCell = str | int | float | None


@dataclasses.dataclass(frozen=True)
class ReportTable:
    """A table.

    Attributes:
      name: of its CSV file, without the ending.
      caption: one sentence: what it shows, of how many.
      columns: headings.
      rows: a cell a column; None is shown as a dash.
    """

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[TableCell, ...], ...]


def table_of(
    name: str, caption: str, items: Iterable[T], columns: Mapping[str, Callable[[T], TableCell]]
) -> ReportTable:
    """A table with a row an item; `columns` are heading -> what to show of one."""
    return ReportTable(name, caption, tuple(columns), tuple(tuple(f(x) for f in columns.values()) for x in items))


def rounded(value: float | None, decimals: int = 4) -> float | None:
    """As tables have it, None where there is none."""
    return None if value is None else round(value, decimals)


def significant(value: float | None, digits: int = 3) -> float | None:
    """The same with so many significant digits."""
    return None if value is None else float(f"{value:.{digits}g}")


@dataclasses.dataclass(frozen=True)
class ReportFigure:
    """A figure on disk.

    Attributes:
      png: the file; the SVG of the same name lies beside it.
      caption: what it shows, with its n.
      alt: the same for those who do not see it, short.
    """

    png: Path
    caption: str
    alt: str


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the report, which a function of `report.registry.SECTIONS` makes.

    Attributes:
      title: its heading.
      paragraphs: plain sentences.
      figures: after the text.
      tables: after the figures.
      viewers: scans to look through, after the tables.
    """

    title: str
    paragraphs: tuple[str, ...] = ()
    figures: tuple[ReportFigure, ...] = ()
    tables: tuple[ReportTable, ...] = ()
    viewers: tuple[Viewer, ...] = ()


@dataclasses.dataclass(frozen=True)
class Tab:
    """Sections that are shown in place of others; `name` is the folder of its tables, unlike the others'."""

    title: str
    name: str
    sections: tuple[Section, ...]


@dataclasses.dataclass(frozen=True)
class Tabs:
    """Parts of the report that a reader chooses from; the first is shown first."""

    label: str
    tabs: tuple[Tab, ...]
