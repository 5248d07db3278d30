"""The page in a real browser: no error, no request, it sorts, its planes move, it fits a phone and paper."""

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.report.test_viewer import head
from tlseg_jax.report.page.page import SYNTHETIC, write_page
from tlseg_jax.report.page.sections import ReportTable, Section, Tab, Tabs
from tlseg_jax.report.page.viewer import COLOURS, make_viewer

playwright = pytest.importorskip("playwright.sync_api")

ARGUMENTS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-gpu",
]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PLACES = [-3.5, 120.0, 8.0, None, 1e-7]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = next((p for b in BROWSERS if (p := shutil.which(b))), None)
    if path is None:
        pytest.skip("there is no Chromium on PATH")
    with playwright.sync_playwright() as started:
        held = started.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield held
        held.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = tuple((f"sub-{i}", i, p, f"{i}.5 (1 to 2)", "long words " * 12) for i, p in enumerate(PLACES, 9))
    table = ReportTable("scores", "Some scores.", ("scan", "n", "difference", "mean", "a wide column"), rows)
    sections = [Section(f"Section {i}", ("words " * 90,), tables=(table,) if i == 0 else ()) for i in range(6)]
    sections.append(Section("Scans", viewers=tuple(make_viewer(head(layers=n)) for n in (2, 1))))
    path = tmp_path_factory.mktemp("page") / "report.html"
    return write_page(path, "A study", sections, warnings=[SYNTHETIC], facts={"n": "2, 4"})


class Opened:
    """A page with what went wrong in it."""

    def __init__(self, browser: Any, path: Path, width: int, scheme: str = "light") -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        self.page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.faults: list[str] = []
        self.page.on("console", self._told)
        self.page.on("pageerror", lambda e: self.faults.append(str(e)))
        self.page.on("request", self._asked)
        self.page.goto(path.as_uri())

    def _told(self, message: Any) -> None:
        if message.type == "error" or "WebGL contexts" in message.text:  # the browser only warns of those it drops
            self.faults.append(message.text)

    def _asked(self, request: Any) -> None:
        if not request.url.startswith(("data:", "blob:", "about:", "file:")):
            self.faults.append(f"asked for {request.url}")

    def viewer(self) -> Any:
        box = self.page.locator(".viewer").first
        box.scroll_into_view_if_needed()
        self.page.wait_for_selector(".viewer[data-ready]", timeout=120_000)
        return box

    def pixels(self, box: Any) -> bytes:
        return box.locator("canvas").screenshot()  # type: ignore[no-any-return]

    def coloured(self, box: Any) -> dict[str, int]:
        """Pixels of each kind of overlay in the three planes, at full opacity."""
        rgb = np.array(Image.open(io.BytesIO(self.pixels(box))).convert("RGB")).astype(int)
        colours = [[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in COLOURS]
        return {
            kind: int((np.abs(rgb - c).max(-1) < 12).sum())
            for kind, c in zip(("found", "missed", "wrong"), colours, strict=True)
        }


@pytest.fixture(params=[1280, 390])
def opened(browser: Any, report: Path, request: pytest.FixtureRequest) -> Iterator[Opened]:
    found = Opened(browser, report, request.param, "dark" if request.param == 390 else "light")
    yield found
    assert found.faults == []
    found.context.close()


def test_the_page_fits_the_screen(opened: Opened) -> None:
    opened.viewer()
    width = opened.page.viewport_size["width"]
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    scrolls = opened.page.locator(".scroll").first
    inner, outer = scrolls.evaluate("e => [e.scrollWidth, e.clientWidth]")
    assert outer < width and (inner > outer or width > 1000)  # what is wide scrolls in its own box


def check_accessible(opened: Opened) -> None:
    """WCAG rules and good practice as axe-core has them (contrast, names, keyboard, landmarks), outside of frames."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    found = axe.Axe().run(opened.page, options={"iframes": False})
    assert found.violations_count == 0, found.generate_report()


def test_axe_finds_no_fault(opened: Opened) -> None:
    check_accessible(opened)


def test_planes_move_by_sliders_keys_and_click(opened: Opened) -> None:
    box = opened.viewer()
    places = box.locator("output")
    before = opened.pixels(box)

    def told() -> list[str]:
        return [" ".join(t.split()[:3]) for t in places.all_text_contents()]  # axial, coronal, sagittal

    def mm() -> list[int]:
        return [int(t.split()[2]) for t in told()]

    z, y, x = mm()
    box.locator(".plane").first.focus()
    opened.page.keyboard.press("ArrowUp")
    assert mm() == [z + 2, y, x]
    assert box.locator(".plane").first.get_attribute("aria-valuetext").startswith(f"z = {z + 2} mm")
    box.locator("canvas").focus()
    for key, expected in (
        ("ArrowUp", [z + 4, y, x]),
        ("ArrowDown", [z + 2, y, x]),
        ("PageUp", [z + 2, y + 2, x]),
        ("ArrowLeft", [z + 2, y + 2, x + 2]),  # to the subject's right, which is on the left
        ("ArrowRight", [z + 2, y + 2, x]),
    ):
        opened.page.keyboard.press(key)
        assert mm() == expected
    assert opened.pixels(box) != before
    box.locator(".plane").first.fill("0")
    assert "(1 of " in places.first.text_content()
    size = box.locator("canvas").bounding_box()
    assert size is not None
    box.locator("canvas").click(position={"x": size["width"] * 0.75, "y": size["height"] * 0.3})
    opened.page.wait_for_function("o => !o.textContent.includes('(1 of ')", arg=places.first.element_handle())


def test_truth_and_prediction_are_switched_apart(opened: Opened) -> None:
    box = opened.viewer()
    box.locator(".opacity").fill("100")
    both = opened.coloured(box)
    assert min(both.values()) > 30 and both["found"] > max(both["missed"], both["wrong"])
    truth, prediction = (box.get_by_label(name, exact=True) for name in ("truth", "prediction"))
    prediction.uncheck()
    assert opened.coloured(box) == both | {"wrong": 0}
    prediction.check()
    truth.uncheck()
    assert opened.coloured(box) == both | {"missed": 0}
    prediction.uncheck()
    assert set(opened.coloured(box).values()) == {0}
    truth.check()
    box.locator(".opacity").fill("0")
    assert set(opened.coloured(box).values()) == {0}


def test_each_structure_is_shown_where_it_is(opened: Opened) -> None:
    box = opened.viewer()
    left, right = box.locator(".structure").all()
    place = box.locator("output").first
    z = int((place.text_content() or "").split()[2])
    right.press("Enter")
    opened.page.wait_for_function(
        "([e, t]) => e.textContent.startsWith(t)", arg=[place.element_handle(), f"z = {z - 4} "]
    )
    assert (left.get_attribute("aria-pressed"), right.get_attribute("aria-pressed")) == ("false", "true")
    assert "HDT-V-FT, right." in box.locator(".said").text_content()
    box.locator(".opacity").fill("100")
    assert min(opened.coloured(box).values()) > 30
    check_accessible(opened)
    assert opened.page.locator(".viewer").nth(1).locator(".structure").count() == 0  # one has no choice


def test_paper_and_browsers_without_webgl_have_the_picture(browser: Any, report: Path) -> None:
    found = Opened(browser, report, 1280)
    box = found.viewer()
    assert box.locator("canvas").is_visible() and not box.locator("img").is_visible()
    found.page.emulate_media(media="print")
    for each in found.page.locator(".viewer").all():  # those that were never looked at too
        assert each.locator("img").is_visible() and not each.locator("canvas").is_visible()
    assert found.faults == []
    found.context.close()
    context = browser.new_context()
    context.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
    page = context.new_page()
    page.goto(report.as_uri())
    page.locator(".viewer").first.scroll_into_view_if_needed()
    page.locator(".fault").first.wait_for(state="visible")
    assert page.locator(".viewer img").first.is_visible() and page.locator(".plane").first.is_disabled()
    context.close()


def test_of_many_viewers_those_far_from_the_screen_are_freed(browser: Any, tmp_path: Path) -> None:
    """A browser keeps some 16 canvases; what was chosen in one that was freed is still there when it comes back."""
    section = Section("Scans", viewers=(make_viewer(head()),) * 20)
    path = write_page(tmp_path / "report.html", "A study", [section], facts={})
    found = Opened(browser, path, 1280)
    boxes, held = found.page.locator(".viewer").all(), []

    def shown(box: Any) -> str:
        box.locator(".views").scroll_into_view_if_needed()
        box.locator(".views[data-live]").wait_for(timeout=120_000)
        seen = np.array(Image.open(io.BytesIO(found.pixels(box))).convert("RGB"))
        assert np.ptp(seen) > 200 and seen.std() > 20 and not box.locator("img").is_visible()
        held.append(found.page.locator(".viewer[data-ready]").count())
        return str(box.locator("output").first.text_content())

    shown(boxes[0])
    boxes[0].locator(".plane").first.fill("5")
    chosen = [shown(box) for box in boxes]
    assert "(6 of " in chosen[0] and len(set(chosen[1:])) == 1
    assert max(held) < 8 and boxes[0].locator("img").is_visible() and boxes[0].locator(".plane").first.is_disabled()
    assert shown(boxes[0]) == chosen[0]
    found.page.emulate_media(media="print")
    assert all(box.locator("img").is_visible() for box in boxes)
    assert found.faults == []
    found.context.close()


def test_tables_sort_by_number_and_by_name(opened: Opened) -> None:
    head = opened.page.locator("th")

    def column(i: int) -> list[str]:
        return [t.strip() for t in opened.page.locator(f"tbody tr td:nth-child({i + 1})").all_text_contents()]

    assert head.nth(2).get_attribute("aria-sort") == "none"
    head.nth(2).locator("button").click()
    assert head.nth(2).get_attribute("aria-sort") == "ascending"
    assert column(2) == ["-3.5", "1e-07", "8", "120", "\N{EN DASH}"]
    head.nth(2).locator("button").press("Enter")
    assert head.nth(2).get_attribute("aria-sort") == "descending"
    assert column(2) == ["120", "8", "1e-07", "-3.5", "\N{EN DASH}"]
    head.nth(0).locator("button").click()
    assert column(0) == ["sub-9", "sub-10", "sub-11", "sub-12", "sub-13"]
    assert head.nth(2).get_attribute("aria-sort") == "none"
    head.nth(3).locator("button").click()
    head.nth(3).locator("button").click()
    assert column(3)[0] == "13.5 (1 to 2)" and column(3)[-1] == "9.5 (1 to 2)"


def test_a_table_can_be_downloaded(opened: Opened, report: Path) -> None:
    with opened.page.expect_download() as waited:
        opened.page.locator("a[download]").first.click()
    assert Path(waited.value.path()).read_bytes() == (report.parent / "tables" / "scores.csv").read_bytes()


@pytest.fixture
def tabbed(browser: Any, tmp_path: Path) -> Iterator[Opened]:
    names = ("All structures", "left", "right")
    tabs = tuple(
        Tab(name, name.split()[0], tuple(Section(f"Section {i}", (f"{name} {i} " + "words " * 900,)) for i in range(3)))
        for name in names
    )
    sections = [Section("First", ("words",)), Tabs("Structure", tabs), Section("Last", ("words " * 900,))]
    path = write_page(tmp_path / "report.html", "A study", sections, facts={})
    found = Opened(browser, path, 1280)
    yield found
    assert found.faults == []
    found.context.close()


def seen(opened: Opened) -> list[str]:
    """The panels that are shown, and the tab that is said to be."""
    shown = [p.locator("h2").text_content() for p in opened.page.locator(".panel").all() if p.is_visible()]
    chosen = opened.page.get_by_role("tab", selected=True).all_text_contents()
    assert shown == chosen
    return chosen  # type: ignore[no-any-return]


def test_tabs_are_chosen_by_mouse_and_keys(tabbed: Opened) -> None:
    page = tabbed.page
    assert seen(tabbed) == ["All structures"]
    page.get_by_role("tab", name="right").click()
    assert seen(tabbed) == ["right"]
    for key, expected in (
        ("ArrowRight", "All structures"),
        ("ArrowLeft", "right"),
        ("ArrowLeft", "left"),
        ("Home", "All structures"),
        ("End", "right"),
    ):
        page.keyboard.press(key)
        assert seen(tabbed) == [expected]
        assert page.evaluate("document.activeElement.textContent") == expected
    assert page.locator("[role=tab][tabindex='0']").count() == 1  # one stop of the Tab key
    panel = page.get_by_role("tabpanel")
    assert panel.count() == 1 and panel.get_attribute("aria-labelledby") == "right-tab"


def test_axe_finds_no_fault_in_tabs(tabbed: Opened) -> None:
    check_accessible(tabbed)


def test_the_contents_open_the_tab_that_they_lead_into(tabbed: Opened) -> None:
    page = tabbed.page
    page.locator("nav").get_by_text("left", exact=True).click()
    assert seen(tabbed) == ["left"]
    assert page.locator("nav ul ul:visible").count() == 1
    page.locator("nav").get_by_text("Section 2").locator("visible=true").click()
    page.wait_for_function("() => scrollY > 500")
    assert seen(tabbed) == ["left"] and page.url.endswith("#left-section-2")
    page.wait_for_function(
        "() => document.getElementById('left-section-2').getBoundingClientRect().top"
        " - document.querySelector('.chooser').getBoundingClientRect().bottom < 40"
    )
    ends = "e => [e.getBoundingClientRect().top, e.getBoundingClientRect().bottom]"
    heading = page.locator("#left-section-2 h3").evaluate(ends)
    assert heading[0] >= page.locator(".chooser").evaluate(ends)[1] - 1  # not behind the tabs, to a pixel
    page.evaluate("location.hash = 'right-section-1'")
    page.wait_for_function("() => !document.getElementById('right').hidden")
    assert seen(tabbed) == ["right"]


def test_another_structure_is_shown_at_the_section_that_was_read(tabbed: Opened) -> None:
    page = tabbed.page
    page.evaluate("document.getElementById('all-structures-section-2').scrollIntoView({behavior: 'instant'})")
    top = "id => document.querySelector(`#${id} h3`).getBoundingClientRect().top"
    before = page.evaluate(top, "all-structures-section-2")
    page.get_by_role("tab", name="left").click()
    assert page.evaluate(top, "left-section-2") == pytest.approx(before, abs=2)


def test_all_structures_are_printed_and_without_a_script_all_are_shown(browser: Any, tabbed: Opened) -> None:
    panels = tabbed.page.locator(".panel")
    tabbed.page.emulate_media(media="print")
    assert [p.is_visible() for p in panels.all()] == [True] * 3
    plain = browser.new_context(java_script_enabled=False).new_page()
    plain.goto(tabbed.page.url)
    assert [p.is_visible() for p in plain.locator(".panel").all()] == [True] * 3
    plain.context.close()
