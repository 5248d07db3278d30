"""The page's script: tables that sort, and tabs; that of the viewers is in `viewer_box`."""

JS = r"""
"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  const number = cell => {
    const text = cell.dataset.v ?? cell.textContent.trim();
    const found = /^[-+\u2212]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?/i.exec(text);
    return found ? parseFloat(found[0].replace("\u2212", "-")) : NaN;
  };
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    heads.forEach(h => h.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...body.rows].map(row => ({row, cell: row.cells[column]}));
    const empty = r => r.cell.hasAttribute("data-empty");
    const numeric = rows.every(r => empty(r) || !Number.isNaN(number(r.cell)));
    const sign = down ? -1 : 1;
    rows.sort((a, b) => {
      if (empty(a) || empty(b)) return empty(a) - empty(b);
      if (numeric) return sign * (number(a.cell) - number(b.cell));
      return sign * a.cell.textContent.localeCompare(b.cell.textContent, "en", {numeric: true});
    });
    body.append(...rows.map(r => r.row));
  }));
}
"""

TABS_JS = r"""
for (const box of document.querySelectorAll(".tabs")) {
  const chooser = box.querySelector(".chooser"), list = chooser.querySelector("ul");
  const tabs = [...list.querySelectorAll("a")];
  const panels = tabs.map(tab => document.getElementById(tab.hash.slice(1)));
  const contents = [...document.querySelectorAll("nav a")];
  const below = panels.map(p => contents.find(a => a.hash === "#" + p.id).nextElementSibling);
  const shown = () => panels.findIndex(p => !p.hidden);
  const choose = chosen => {
    panels.forEach((panel, i) => {
      panel.hidden = i !== chosen;
      if (below[i]) below[i].hidden = panel.hidden;
      tabs[i].setAttribute("aria-selected", String(i === chosen));
      tabs[i].tabIndex = i === chosen ? 0 : -1;
    });
    box.style.setProperty("--chooser", chooser.offsetHeight + "px");  // what links lead to stays below it
  };
  const titled = (panel, title) => [...panel.querySelectorAll("h3")].find(h => h.textContent === title);
  const turn = chosen => {  // the same section of another structure, where one is being read
    const top = chooser.getBoundingClientRect().bottom + 150;
    const read = [...panels[shown()].querySelectorAll("h3")].filter(h => h.getBoundingClientRect().top < top).pop();
    const before = read && read.getBoundingClientRect().top;
    choose(chosen);
    const same = read && titled(panels[chosen], read.textContent);
    if (same) window.scrollBy({top: same.getBoundingClientRect().top - before, behavior: "instant"});
  };
  const reveal = hash => {
    const aim = hash && document.getElementById(decodeURIComponent(hash.slice(1)));
    const at = aim ? panels.findIndex(p => p.contains(aim)) : -1;
    if (at >= 0) choose(at);
    return at >= 0 ? aim : null;
  };
  list.setAttribute("role", "tablist");
  tabs.forEach((tab, i) => {
    tab.parentElement.setAttribute("role", "presentation");
    tab.setAttribute("role", "tab");
    tab.id = panels[i].id + "-tab";
    tab.setAttribute("aria-controls", panels[i].id);
    panels[i].setAttribute("role", "tabpanel");
    panels[i].setAttribute("aria-labelledby", tab.id);
    tab.addEventListener("click", event => { event.preventDefault(); turn(i); });
    tab.addEventListener("keydown", event => {
      const last = tabs.length - 1, before = i ? i - 1 : last, after = i < last ? i + 1 : 0;
      const to = {ArrowRight: after, ArrowLeft: before, Home: 0, End: last, " ": i}[event.key];
      if (to === undefined) return;
      event.preventDefault();
      turn(to);
      tabs[to].focus();
    });
  });
  contents.forEach(a => a.addEventListener("click", () => reveal(a.hash)));  // before the browser goes there
  window.addEventListener("hashchange", () => reveal(location.hash)?.scrollIntoView());
  choose(0);
  reveal(location.hash)?.scrollIntoView();
}
"""
