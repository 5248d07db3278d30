"""The report as one HTML file that needs no other: styles, script, pictures, tables and scans are inside.

FOLDER/report.html
FOLDER/tables/NAME.csv     the same numbers, unrounded; of a tab in a folder of its own
"""

import base64
import csv
import dataclasses
import html
import io
import math
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from PIL import Image

from tlseg_jax.figures.style import DPI
from tlseg_jax.report.page.page_script import JS, TABS_JS
from tlseg_jax.report.page.page_style import CSS, TABS_CSS
from tlseg_jax.report.page.sections import ReportFigure, ReportTable, Section, Tab, TableCell, Tabs
from tlseg_jax.report.page.viewer_box import JS as VIEWER_JS
from tlseg_jax.report.page.viewer_box import library_box, viewer_box
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import replacing

MAX_PICTURE = 300_000
"""Bytes of a picture in the page."""

SCALE = 120 / DPI
"""Screen pixels for a pixel of a figure: 120 an inch, so that its small print can be read."""

SYNTHETIC = (
    "Synthetic data: these scans are drawn, not scanned. The scores show that the software works and how the methods "
    "compare on drawings; they mean nothing for patients."
)

FACTS = "The study at a glance"
"""Heading of the facts."""

SHORT = 28
"""Letters that stay on one line of a table."""

POLICY = (
    "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "script-src-elem 'unsafe-inline' blob:"
)
"""The browser itself refuses every request to a server; blob: is the viewers' script, which the page unpacks."""


def write_page(
    path: Path,
    title: str,
    sections: Sequence[Section | Tabs],
    *,
    warnings: Sequence[str] = (),
    facts: Mapping[str, str],
    tables: bool = True,
) -> Path:
    """Write the page, and each table as CSV beside it.

    Text is shown as it is: `**words**` are bold, everything else is escaped.

    Args:
      path: the HTML file; tables go to "tables" beside it, which is made.
      title: its heading.
      sections: in order; a section without anything in it is left out. Without the script all tabs are shown, one
        below the other.
      warnings: what to say at the top, before anything is read, such as `SYNTHETIC`.
      facts: name -> value, listed at the end.
      tables: whether to write the tables beside it, too.

    Returns:
      `path`.

    Raises:
      InputError: a figure's file is missing or no picture.
      ValueError: two tables of a tab have one name, or a table's rows and columns do not agree.
    """
    parts = _parts(sections)
    if tables:
        _write_tables(parts, path.parent / "tables")
    beside = " and, as CSV, in the folder <code>tables</code> beside it" if tables else ""
    # A section of a tab has its tab's name in its own, or those of two tabs would be one.
    headings = [h for p in parts for h in _headings(p)] + ([FACTS] if facts else [])
    anchors = iter(_anchors(headings))
    body, listed_parts = [], []
    for part in parts:
        if isinstance(part, Tabs):
            drawn, entry = _tabs(part, anchors)
        else:
            anchor = next(anchors)
            drawn, entry = _section(part, anchor), _entry(part.title, anchor)
        body.append(drawn)
        listed_parts.append(entry)
    if facts:
        anchor = next(anchors)
        listed = "".join(f"<div><dt>{_text(k)}</dt><dd>{_text(v)}</dd></div>" for k, v in facts.items())
        body.append(f'<section id="{anchor}"><h2>{FACTS}</h2><dl>{listed}</dl></section>')
        listed_parts.append(_entry(FACTS, anchor))
    contents = "".join(listed_parts)
    tabbed = any(isinstance(p, Tabs) for p in parts)
    viewed = any(s.viewers for s in _every(parts))
    css, js = CSS + TABS_CSS * tabbed, JS + TABS_JS * tabbed + VIEWER_JS * viewed
    banner = "".join(f'<p class="banner" role="note"><strong>{_text(w)}</strong></p>' for w in warnings)
    page = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{_text(title)}</title><link rel="icon" href="data:,"><style>{css}</style></head>\n'
        f'<body><div class="frame"><header>{banner}<h1>{_text(title)}</h1>'
        f'</header>\n<nav aria-label="Contents"><h2>Contents</h2><ul>{contents}</ul></nav>\n<main>'
        + "\n".join(body)
        + f"</main>\n<footer><p>Not a medical device. Every table is in this file{beside}.</p></footer></div>\n"
        + (library_box() if viewed else "")
        + f"<script>{js}</script></body></html>\n"
    )
    with replacing(path) as f:
        f.write(page)
    return path


def _text(text: str) -> str:
    return html.escape(text, quote=True)


def _rich(text: str) -> str:
    """Escaped, with `**words**` in bold."""
    return re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", _text(text))


def _anchors(titles: Sequence[str]) -> list[str]:
    """A name for each heading, unlike every other."""
    found: list[str] = []
    for title in titles:
        plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
        name = re.sub(r"[^a-z0-9]+", "-", plain).strip("-") or "section"
        count = sum(f == name or re.fullmatch(rf"{re.escape(name)}-\d+", f) is not None for f in found)
        found.append(name if not count else f"{name}-{count + 1}")
    return found


def _parts(sections: Sequence[Section | Tabs]) -> list[Section | Tabs]:
    """Without what is empty."""

    def full(some: Sequence[Section]) -> tuple[Section, ...]:
        return tuple(s for s in some if s.paragraphs or s.figures or s.tables or s.viewers)

    parts: list[Section | Tabs] = []
    for part in sections:
        if isinstance(part, Tabs):
            parts.append(Tabs(part.label, tuple(dataclasses.replace(t, sections=full(t.sections)) for t in part.tabs)))
        else:
            parts += full((part,))
    return parts


def _every(parts: Sequence[Section | Tabs]) -> list[Section]:
    return [s for p in parts for s in ([p] if isinstance(p, Section) else [s for t in p.tabs for s in t.sections])]


def _write_tables(parts: Sequence[Section | Tabs], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    of_tabs = [(t.name, s) for p in parts if isinstance(p, Tabs) for t in p.tabs for s in t.sections]
    named: set[tuple[str, str]] = set()
    for tab, section in [*(("", p) for p in parts if isinstance(p, Section)), *of_tabs]:
        for table in section.tables:
            if (tab, table.name) in named or not re.fullmatch(r"[\w.-]+", table.name):
                raise ValueError(f"the table name {table.name!r} is there twice or cannot be a file's")
            named.add((tab, table.name))
            (folder / tab).mkdir(exist_ok=True)
            with replacing(folder / tab / f"{table.name}.csv", newline="") as f:
                f.write(_csv(table))


def _headings(part: Section | Tabs) -> list[str]:
    """What stands above each piece of the page, in order."""
    if isinstance(part, Section):
        return [part.title]
    return [h for t in part.tabs for h in (t.title, *(f"{t.title} {s.title}" for s in t.sections))]


def _entry(title: str, anchor: str, below: str = "") -> str:
    return f'<li><a href="#{anchor}">{_text(title)}</a>{f"<ul>{below}</ul>" if below else ""}</li>'


def _tabs(tabs: Tabs, anchors: Iterator[str]) -> tuple[str, str]:
    """The panels below links to each, which the script makes tabs of; and their lines in the contents."""
    links, panels, entries = [], [], []
    for tab in tabs.tabs:
        anchor, below = next(anchors), []
        panels.append(f'<div class="panel" id="{anchor}"><h2>{_text(tab.title)}</h2>')
        for section in tab.sections:
            own = next(anchors)
            panels.append(_section(section, own, tab))
            below.append(_entry(section.title, own))
        panels.append("</div>")
        links.append(f'<li><a href="#{anchor}">{_text(tab.title)}</a></li>')
        entries.append(_entry(tab.title, anchor, "".join(below)))
    chooser = f'<p class="label">{_text(tabs.label)}</p><ul aria-label="{_text(tabs.label)}">{"".join(links)}</ul>'
    return f'<div class="tabs"><div class="chooser">{chooser}</div>{"".join(panels)}</div>', "".join(entries)


def _section(section: Section, anchor: str, tab: Tab | None = None) -> str:
    level = "h3" if tab else "h2"
    parts = [f'<section id="{anchor}"><{level}>{_text(section.title)}</{level}>']
    parts += [f"<p>{_rich(p)}</p>" for p in section.paragraphs]
    parts += [_figure(f) for f in section.figures]
    parts += [_table(t, f"{tab.name}_" if tab else "") for t in section.tables]
    parts += [viewer_box(v, f"{anchor}-{i}") for i, v in enumerate(section.viewers, 1)]
    return "".join(parts) + "</section>"


def _figure(figure: ReportFigure) -> str:
    uri, (width, height) = _picture(figure.png)
    size = f'width="{round(width * SCALE)}" height="{round(height * SCALE)}" style="--own:{round(width * SCALE)}px"'
    return (
        f'<figure><div class="pan" tabindex="0" role="group" aria-label="{_text(figure.alt)}">'
        f'<img src="{uri}" alt="{_text(figure.alt)}" {size}></div>'
        f"<figcaption>{_rich(figure.caption)}</figcaption></figure>"
    )


def _picture(png: Path) -> tuple[str, tuple[int, int]]:
    """The smaller of PNG and SVG as a data: URI, and the PNG's pixels; a PNG above `MAX_PICTURE` is made smaller."""
    try:
        picture = png.read_bytes()
        svg = png.with_suffix(".svg")
        drawing = svg.read_bytes() if svg.is_file() else None
        with Image.open(io.BytesIO(picture)) as held:
            size = held.size
        if drawing is not None and len(drawing) <= min(len(picture), MAX_PICTURE):
            return _uri("image/svg+xml", drawing), size
        return _uri("image/png", _smaller(picture) if len(picture) > MAX_PICTURE else picture), size
    except OSError as e:
        raise InputError(
            f"The figure {png} cannot be read ({e.strerror or e}): run the report again, which draws it."
        ) from None


def _smaller(picture: bytes) -> bytes:
    """The same in 256 colours and, where that is not enough, with fewer pixels."""
    with Image.open(io.BytesIO(picture)) as held:
        full = held.convert("RGB")
    scale = 1.0
    while True:
        size = (max(1, round(full.width * scale)), max(1, round(full.height * scale)))
        out = io.BytesIO()
        shrunk = full.resize(size, Image.Resampling.LANCZOS) if scale < 1 else full
        shrunk.quantize(256, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
        if out.tell() <= MAX_PICTURE or min(size) == 1:
            return out.getvalue()
        scale *= 0.8


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _table(table: ReportTable, prefix: str) -> str:
    link = _uri("text/csv;charset=utf-8", _csv(table).encode())
    numeric = [
        any(row[i] is not None for row in table.rows)
        and all(row[i] is None or isinstance(row[i], int | float) for row in table.rows)
        for i in range(len(table.columns))
    ]
    head = "".join(
        f'<th scope="col" aria-sort="none"{_class(n)}><button type="button">{_text(c)}</button></th>'
        for c, n in zip(table.columns, numeric, strict=True)
    )
    digits = [_decimals([row[i] for row in table.rows]) for i in range(len(table.columns))]
    rows = "".join(
        "<tr>" + "".join(_cell(v, n, d) for v, n, d in zip(row, numeric, digits, strict=True)) + "</tr>"
        for row in table.rows
    )
    name = f"{prefix}{table.name}.csv"
    return (
        f'<div class="table"><div class="scroll" tabindex="0" role="group" aria-label="{_text(table.caption)}">'
        f'<table class="sortable"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        f'<p>{_rich(table.caption)} <a download="{_text(name)}" href="{link}">Download {_text(name)}</a></p></div>'
    )


def _class(numeric: bool) -> str:
    return ' class="num"' if numeric else ""


def _cell(value: TableCell, numeric: bool, decimals: int | None) -> str:
    if value is None or value == "" or (isinstance(value, float) and not math.isfinite(value)):
        return f"<td data-empty{_class(numeric)}>\N{EN DASH}</td>"
    if isinstance(value, float):
        shown = f"{value:.4g}" if decimals is None else f"{round(value, decimals) + 0.0:.{decimals}f}"  # no -0.0
        return f'<td data-v="{value!r}"{_class(numeric)}>{shown}</td>'
    text = str(value)
    if isinstance(value, int) and text != f"{int(value)}":  # "all" sorts as the number that it stands for
        return f'<td data-v="{int(value)}"{_class(numeric)}>{text}</td>'
    kind = _class(numeric) if numeric or len(text) <= SHORT else ' class="long"'
    return f"<td{kind}>{_rich(text)}</td>"


def _decimals(values: Sequence[TableCell]) -> int | None:
    """Decimals for a whole column, four significant digits of its largest number; None where sizes differ too much."""
    known = [v for v in values if isinstance(v, float) and math.isfinite(v)]
    sizes = [abs(v) for v in known if v]
    if not sizes or min(sizes) < 1e-4 or max(sizes) >= 1e6:
        return None
    most = max(0, 3 - max(-1, math.floor(math.log10(max(sizes)))))
    return next((d for d in range(most) if all(abs(round(v, d) - v) < 1e-9 for v in known)), most)


def _csv(table: ReportTable) -> str:
    if len(set(table.columns)) != len(table.columns):
        raise ValueError(f"the table {table.name} has a column twice")
    if any(len(row) != len(table.columns) for row in table.rows):
        raise ValueError(f"a row of the table {table.name} has another length than its columns")
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\n").writerows([table.columns, *table.rows])
    return out.getvalue()
