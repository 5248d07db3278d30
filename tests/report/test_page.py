"""The page is parsed again: what went in is there, escaped, and nothing points outside the file."""

import base64
import csv
import io
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from tlseg_jax.figures.style import save_figure
from tlseg_jax.report.page.page import MAX_PICTURE, SYNTHETIC, write_page
from tlseg_jax.report.page.sections import ReportFigure, ReportTable, Section
from tlseg_jax.runtime.errors import InputError

TABLE = ReportTable(
    "scores",
    "IoU of 3 <persons>.",
    ("method", "n", "IoU", "p"),
    (("HDT-V-FT", 2, 0.123456789, None), ("A & <b>B</b>", 16, float("nan"), 1e-6), ('C, "quoted"', 4, 0.5, 1.0)),
)


class Parsed(HTMLParser):
    """Every tag with its attributes, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [a for t, a in self.tags if t == tag]


def write(folder: Path, *sections: Section, warnings: Sequence[str] = ()) -> Parsed:
    page = write_page(folder / "report.html", "Study <x>", sections, warnings=warnings, facts={"n & m": "2, 4"})
    return Parsed(page.read_text(encoding="utf-8"))


def line(folder: Path, name: str = "a", points: int = 3) -> Path:
    figure = Figure(figsize=(4, 3))
    figure.subplots().plot(np.random.default_rng(0).normal(size=points))
    save_figure(figure, folder / "figures" / f"{name}.png")
    return folder / "figures" / f"{name}.png"


def content(uri: str | None) -> bytes:
    assert uri is not None
    return base64.b64decode(uri.split(";base64,", 1)[1])


def test_text_is_shown_as_it_is_and_bold_where_it_says_so(tmp_path: Path) -> None:
    page = write(tmp_path, Section("Scores <&>", ("<script>alert(1)</script> **higher** & 'x'",)))
    assert "<script>alert(1)</script> higher & 'x'" in page.text
    assert len(page.all("script")) == 1 and len(page.all("strong")) == 1
    assert "Study <x>" in page.text and "n & m" in page.text and "Scores <&>" in page.text


def test_the_contents_lead_to_every_section(tmp_path: Path) -> None:
    titles = ("Fig. 5", "Fig 5", "Größe", "!!", "Fig. 5")
    page = write(tmp_path, *(Section(t, ("x",)) for t in titles), Section("empty"))
    targets = [a["id"] for a in page.all("section")]
    assert len(set(targets)) == 6 and targets[-1] == "the-study-at-a-glance"  # the facts come last
    assert [a["href"] for a in page.all("a")] == [f"#{t}" for t in targets]


def test_tables_are_in_the_page_in_the_link_and_beside_it(tmp_path: Path) -> None:
    page = write(tmp_path, Section("S", tables=(TABLE,)))
    (link,) = [a for a in page.all("a") if a.get("download")]
    assert link["download"] == "scores.csv"
    beside = (tmp_path / "tables" / "scores.csv").read_text(encoding="utf-8")
    assert content(link["href"]).decode() == beside
    rows = list(csv.reader(io.StringIO(beside)))
    assert rows[0] == list(TABLE.columns)
    assert rows[1] == ["HDT-V-FT", "2", "0.123456789", ""] and rows[3][0] == 'C, "quoted"'
    assert "0.1235" in page.text and "A & <b>B</b>" in page.text and not page.all("b")
    assert [a.get("aria-sort") for a in page.all("th")] == ["none"] * 4
    assert len([a for a in page.all("td") if "data-empty" in a]) == 2
    assert [a.get("class") for a in page.all("th")] == [None, "num", "num", "num"]


@pytest.mark.parametrize(
    "tables",
    [
        (TABLE, TABLE),
        (ReportTable("a/b", "", ("x",), ()),),
        (ReportTable("a", "", ("x", "x"), ((1, 2),)),),
        (ReportTable("a", "", ("x", "y"), ((1,),)),),
    ],
)
def test_tables_that_cannot_be_files_are_refused(tmp_path: Path, tables: tuple[ReportTable, ...]) -> None:
    with pytest.raises(ValueError):
        write(tmp_path, Section("S", tables=tables))
    assert not (tmp_path / "report.html").exists()


def test_the_smaller_of_png_and_svg_is_inside(tmp_path: Path) -> None:
    small, large = line(tmp_path, "small"), line(tmp_path, "large", 20000)
    only = tmp_path / "figures" / "only.png"
    only.write_bytes(small.read_bytes())
    figures = tuple(ReportFigure(p, f"Caption of <{p.stem}>.", p.stem) for p in (small, large, only))
    page = write(tmp_path, Section("S", figures=figures))
    a, b, c = page.all("img")
    sizes = [(p.stat().st_size, p.with_suffix(".svg").stat().st_size) for p in (small, large)]
    for img, (png, svg), path in zip((a, b), sizes, (small, large), strict=True):
        kind = "image/svg+xml" if svg <= png else "image/png"
        assert (img["src"] or "").startswith(f"data:{kind};")
        assert content(img["src"]) == (path.with_suffix(".svg") if svg <= png else path).read_bytes()
    assert sizes[1][1] > sizes[1][0]  # both ways were taken
    assert content(c["src"]) == only.read_bytes()
    assert [i["alt"] for i in (a, b, c)] == ["small", "large", "only"] and "Caption of <large>." in page.text


def test_a_large_picture_is_made_small(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (600, 600, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "big.png")
    page = write(tmp_path, Section("S", figures=(ReportFigure(tmp_path / "big.png", "c", "a"),)))
    inside = content(page.all("img")[0]["src"])
    assert len(inside) <= MAX_PICTURE < (tmp_path / "big.png").stat().st_size
    width, height = Image.open(io.BytesIO(inside)).size
    assert width == height > 200


def test_a_missing_picture_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.png cannot be read \(No such file"):
        write(tmp_path, Section("S", figures=(ReportFigure(tmp_path / "gone.png", "c", "a"),)))


def test_warnings_stand_above_all_else(tmp_path: Path) -> None:
    page = write(tmp_path, Section("S", ("x",)), warnings=[SYNTHETIC, "a < b"])
    assert f"{SYNTHETIC}a < bStudy <x>" in page.text  # each a note of its own, before the heading
    notes = [a for a in page.all("p") if a.get("role") == "note"]
    assert len(notes) == 2
    assert not [a for a in write(tmp_path, Section("S", ("x",))).all("p") if a.get("role") == "note"]


def test_nothing_points_outside_the_file(tmp_path: Path) -> None:
    figure = ReportFigure(line(tmp_path), "c", "a")
    page = write(tmp_path, Section("S", ("x",), (figure,), (TABLE,)), warnings=[SYNTHETIC])
    for tag, attributes in page.tags:
        for name in ("src", "href", "srcset", "action", "data"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:")), (tag, value)
    assert "url(" not in (tmp_path / "report.html").read_text(encoding="utf-8")
    policies = [a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policies and "default-src 'none'" in (policies[0] or "")


def test_the_same_report_gives_the_same_bytes(tmp_path: Path) -> None:
    section = Section("S", ("x",), (ReportFigure(line(tmp_path), "c", "a"),), (TABLE,))
    write(tmp_path, section)
    first = (tmp_path / "report.html").read_bytes()
    write(tmp_path, section)
    assert (tmp_path / "report.html").read_bytes() == first
