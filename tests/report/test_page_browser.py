"""The page in a real browser: no error, no request, it sorts, scrolls and fits a phone."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.report.test_viewer import head
from tlseg_jax.report.page.page import write_page
from tlseg_jax.report.page.sections import ReportTable, Section, Tab, Tabs
from tlseg_jax.report.page.viewer import make_viewer

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
    path = tmp_path_factory.mktemp("page") / "report.html"
    return write_page(
        path, "A study", sections, synthetic=True, facts={"n": "2, 4"}, viewers=[make_viewer(head()) for _ in "ab"]
    )


class Opened:
    """A page with what went wrong in it."""

    def __init__(self, browser: Any, path: Path, width: int, scheme: str = "light") -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        self.page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.faults: list[str] = []
        self.page.on("console", lambda m: self.faults.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda e: self.faults.append(str(e)))
        self.page.on("request", self._asked)
        self.page.goto(path.as_uri())

    def _asked(self, request: Any) -> None:
        if not request.url.startswith(("data:", "blob:", "about:", "file:")):
            self.faults.append(f"asked for {request.url}")

    def viewer(self) -> Any:
        box = self.page.locator(".viewer").first
        box.scroll_into_view_if_needed()
        self.page.wait_for_selector(".viewer[data-ready]")
        return box

    def pixels(self, box: Any) -> str:
        return str(box.locator("canvas").evaluate("c => c.toDataURL()"))


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


def test_slices_change_by_slider_wheel_keys_and_click(opened: Opened) -> None:
    box = opened.viewer()
    place = box.locator("output")
    seen = [(place.text_content(), opened.pixels(box))]

    def moved(expected: str) -> None:
        opened.page.wait_for_function("([e, t]) => e.textContent.startsWith(t)", arg=[place.element_handle(), expected])
        seen.append((place.text_content(), opened.pixels(box)))
        assert seen[-1][1] != seen[-2][1]

    first = float((seen[0][0] or "").split()[2])
    box.locator(".slice").focus()
    opened.page.keyboard.press("ArrowUp")
    moved(f"z = {first + 2:.0f} mm")
    box.locator("canvas").hover()
    opened.page.mouse.wheel(0, -100)
    moved(f"z = {first + 4:.0f} mm")
    box.locator("canvas").focus()
    opened.page.keyboard.press("ArrowDown")
    moved(f"z = {first + 2:.0f} mm")
    box.locator(".slice").fill("0")
    moved("z = ")
    assert "(1 of " in (seen[-1][0] or "")
    inside = opened.page.frame_locator("iframe").first.locator("canvas")
    size = inside.bounding_box()
    assert size is not None
    inside.click(position={"x": size["width"] / 6, "y": size["height"] / 2})  # into the sagittal view: moves z
    moved("z = ")
    assert "(1 of " not in (seen[-1][0] or "")


def test_the_overlay_fades(opened: Opened) -> None:
    box = opened.viewer()
    before = opened.pixels(box)
    box.locator(".overlay").fill("0")
    assert opened.pixels(box) != before
    red = "c => {const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; let n = 0;"
    red += "for (let i = 0; i < d.length; i += 4) n += Math.abs(d[i] - d[i + 1]) > 20; return n;}"
    assert box.locator("canvas").evaluate(red) == 0
    box.locator(".overlay").fill("100")
    assert box.locator("canvas").evaluate(red) == 6 * 6 + 6 * 2 + 6 * 2  # found, missed and wrong


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
    path = write_page(tmp_path / "report.html", "A study", sections, synthetic=False, facts={}, viewers=())
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
    assert heading[0] >= page.locator(".chooser").evaluate(ends)[1]  # not behind the tabs
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
