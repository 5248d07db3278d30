"""What a report is made of, whatever it is shown as: sections of text, figures and tables."""

import dataclasses
from pathlib import Path

from tlseg_jax.report.page.viewer import Viewer

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
    """Sections that are shown in place of others.

    Attributes:
      title: its heading.
      name: of the folder of its tables, unlike the others'.
      sections: in order.
    """

    title: str
    name: str
    sections: tuple[Section, ...]


@dataclasses.dataclass(frozen=True)
class Tabs:
    """Parts of the report that a reader chooses from.

    Attributes:
      label: what is chosen.
      tabs: the first is shown first.
    """

    label: str
    tabs: tuple[Tab, ...]
