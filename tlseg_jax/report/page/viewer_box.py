"""A viewer as a piece of the page: its tabs, sliders and switches, and NiiVue with the script that starts it there.

NiiVue's own script is that of the `ipyniivue` wheel, made small.
"""

import base64
import functools
import gzip
import html
import importlib.metadata
import importlib.util
import json
import re
from pathlib import Path

from tlseg_jax.report.page.viewer import AXES, OPACITY, Viewer
from tlseg_jax.runtime.errors import InputError

HOW = (
    "Move through the planes with the sliders, the arrow keys and Page Up and Page Down, the mouse wheel or a click in "
    "a view. The subject's right is on the left."
)
"""For the section that viewers stand in."""


def library_box() -> str:
    """NiiVue itself, once in a page with viewers."""
    return f'<script type="text/plain" id="niivue">{niivue()}</script>'


def viewer_box(viewer: Viewer, name: str) -> str:
    """The HTML of a viewer, whose elements' ids begin with `name`, unlike the page's others."""
    said = html.escape(viewer.subject, quote=True)
    still = base64.b64encode(viewer.still).decode("ascii")
    layers = [{"caption": x.caption, "file": x.file, "start": x.start} for x in viewer.layers]
    held = {"file": viewer.file, "layers": layers, "places": viewer.places, "stack": viewer.stack}
    held["colours"] = [colour for _, colour in viewer.key]
    shown = [(i, plane) for i, plane in enumerate(AXES) if i == 2 or not viewer.stack]
    sliders = "".join(
        f'<label for="{name}-{plane}">{plane.capitalize()}</label><input id="{name}-{plane}" class="plane" '
        f'data-axis="{i}" type="range" min="0" max="{len(viewer.places[i]) - 1}" value="{viewer.layers[0].start[i]}" '
        f"disabled><output>{viewer.places[i][viewer.layers[0].start[i]]}</output>"
        for i, plane in reversed(shown)
    )
    switches = "".join(
        f'<label><input type="checkbox" class="switch" data-values="{json.dumps(values)}" checked disabled>'
        f"{html.escape(words)}</label>"
        for words, values in viewer.switches
    )
    key = "".join(f'<li><i style="background:{colour}"></i>{words}</li>' for words, colour in viewer.key)
    return (
        f'<div class="viewer"><h3>{html.escape(viewer.title)}</h3>{_structures(viewer)}'
        f'<p class="said">{html.escape(viewer.layers[0].caption)}</p>'
        + (f"<p>{html.escape(viewer.note)}</p>" if viewer.note else "")
        + f'<div class="views"><img src="data:image/png;base64,{still}" alt="Planes of {said} through most of the '
        f'overlay"><canvas tabindex="0" role="img" aria-label="Planes of {said}" hidden></canvas></div>'
        f'<p class="fault" role="status" hidden>The planes cannot be moved here: this browser has no WebGL 2.</p>'
        f'<div class="controls">{sliders}<label for="{name}-opacity">Overlay</label><input id="{name}-opacity" '
        f'class="opacity" type="range" min="0" max="100" value="{OPACITY * 100:.0f}" disabled>'
        f'<div class="switches" role="group" aria-label="Overlays">{switches}</div></div><ul class="key">{key}</ul>'
        f'<script type="application/json">{json.dumps(held).replace("<", chr(92) + "u003c")}</script></div>'
    )


def _structures(viewer: Viewer) -> str:
    """A button a structure, where there are several."""
    if len(viewer.layers) < 2:
        return ""
    buttons = "".join(
        f'<button type="button" class="structure" aria-pressed="{str(not i).lower()}" disabled>'
        f"{html.escape(x.name)}</button>"
        for i, x in enumerate(viewer.layers)
    )
    return f'<div class="structures" role="group" aria-label="Structure">{buttons}</div>'


JS = r"""
const unpacked = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
let library = null;
const loaded = () => library ??= (async () => {
  const packed = new Blob([unpacked(document.getElementById("niivue").textContent)]);
  const script = await new Response(packed.stream().pipeThrough(new DecompressionStream("gzip"))).text();
  return (await import(URL.createObjectURL(new Blob([script], {type: "text/javascript"})))).Niivue;
})();

let works = null;
const webgl = () => works ??= (() => {
  const gl = document.createElement("canvas").getContext("webgl2");
  gl?.getExtension("WEBGL_lose_context")?.loseContext();
  return gl !== null;
})();

const viewerOf = box => {
  const held = JSON.parse(box.querySelector("script").textContent);
  const sliders = [...box.querySelectorAll(".plane")], switches = [...box.querySelectorAll(".switch")];
  const opacity = box.querySelector(".opacity"), structures = [...box.querySelectorAll(".structure")];
  const views = box.querySelector(".views"), last = held.places.map(p => p.length - 1);
  const blank = views.querySelector("canvas").cloneNode(), narrow = matchMedia("(max-width:60rem)");
  const within = (v, axis) => Math.max(0, Math.min(last[axis], Math.round(v)));
  let viewer = null, chosen = 0, voxel = held.layers[0].start;  // what was chosen stays where the viewer is freed
  const enable = on => {
    for (const control of [...sliders, ...switches, ...structures, opacity]) control.disabled = !on;
    box.toggleAttribute("data-ready", on);
    views.toggleAttribute("data-live", on);
  };
  const arrange = () => viewer?.setMultiplanarLayout(narrow.matches ? 2 : 3);
  const told = () => {
    voxel = Array.from(viewer.frac2vox(viewer.scene.crosshairPos, 0)).map(within);
    for (const slider of sliders) {
      const axis = +slider.dataset.axis, place = held.places[axis][voxel[axis]];
      slider.value = voxel[axis];
      slider.setAttribute("aria-valuetext", place);
      slider.nextElementSibling.textContent = place;
    }
  };
  const go = to => {
    viewer.scene.crosshairPos = viewer.vox2frac(to.map(within), 0);
    viewer.drawScene();
    told();
  };
  const colour = () => {
    const on = new Set(switches.filter(s => s.checked).flatMap(s => JSON.parse(s.dataset.values)));
    const part = i => [0, ...held.colours.map(c => parseInt(c.slice(i, i + 2), 16))];
    viewer.volumes[1].setColormapLabel({
      R: part(1), G: part(3), B: part(5), A: [0, 1, 2, 3].map(v => on.has(v) ? 255 : 0), I: [0, 1, 2, 3],
      labels: ["", "1", "2", "3"],
    });
    viewer.setOpacity(1, opacity.value / 100);
    viewer.updateGLVolume();
  };
  const lay = async () => {
    const layer = held.layers[chosen];
    structures.forEach((b, i) => b.setAttribute("aria-pressed", String(i === chosen)));
    box.querySelector(".said").textContent = layer.caption;
    if (viewer.volumes.length > 1) viewer.removeVolume(viewer.volumes[1]);
    await viewer.loadFromArrayBuffer(unpacked(layer.file).buffer, "overlay.nii.gz");
    colour();
  };
  const keys = event => {
    const [axis, by] = {
      ArrowUp: [2, 1], ArrowDown: [2, -1], ArrowRight: [0, -1], ArrowLeft: [0, 1], PageUp: [1, 1], PageDown: [1, -1],
    }[event.key] ?? [];
    if (event.key !== "Tab") event.stopImmediatePropagation();  // NiiVue has keys of its own
    if (by === undefined || (held.stack && axis !== 2)) return;
    event.preventDefault();
    go(voxel.map((v, i) => i === axis ? v + by : v));
  };
  narrow.addEventListener("change", arrange);
  for (const slider of sliders) slider.addEventListener("input", () => {
    go(voxel.map((v, i) => i === +slider.dataset.axis ? +slider.value : v));
  });
  for (const s of switches) s.addEventListener("change", colour);
  opacity.addEventListener("input", () => viewer.setOpacity(1, opacity.value / 100));
  structures.forEach((b, i) => b.addEventListener("click", () => turns.next(async () => {
    if (!viewer) return;
    chosen = i;
    await lay();
    go(held.layers[i].start);
  })));
  const start = async () => {
    if (viewer) return;
    if (!webgl()) {
      box.querySelector(".fault").hidden = false;
      return;
    }
    const Niivue = await loaded(), canvas = views.querySelector("canvas"), to = voxel;
    viewer = new Niivue({
      isRadiologicalConvention: true, backColor: [0, 0, 0, 1], crosshairColor: [1, 0.82, 0.25, 1], crosshairWidth: 1,
      multiplanarShowRender: 0, dragAndDropEnabled: false, viewModeHotKey: "", clipPlaneHotKey: "", logLevel: "error",
      isOrientCube: false, show3Dcrosshair: false,
    });
    canvas.hidden = false;  // behind the picture, which stays until all is there
    canvas.addEventListener("keydown", keys, {capture: true});
    await viewer.attachToCanvas(canvas, false);
    viewer.setInterpolation(true);  // voxels as they are
    viewer.setSliceType(held.stack ? 0 : 3);
    arrange();
    await viewer.loadFromArrayBuffer(unpacked(held.file).buffer, "scan.nii.gz");
    await lay();
    go(to);
    viewer.onLocationChange = told;
    views.style.height = "";
    enable(true);
    viewer.resizeListener();
  };
  const free = () => {
    if (!viewer) return;
    views.style.height = `${views.offsetHeight}px`;  // or what is being read would move
    enable(false);
    viewer.cleanup();
    viewer.gl?.getExtension("WEBGL_lose_context")?.loseContext();
    viewer.canvas.replaceWith(blank.cloneNode());
    viewer = null;
  };
  return {start, free};
};

// Browsers keep some 16 canvases and drop the oldest: those far from the screen are freed, and one starts at a time.
const turns = {done: Promise.resolve(), next(task) { this.done = this.done.then(task).catch(console.error); }};
const viewers = new Map(), near = new Map();
const watch = new IntersectionObserver(seen => {
  for (const {target, isIntersecting} of seen) near.set(target, isIntersecting);
  for (const {target} of seen.sort((a, b) => a.isIntersecting - b.isIntersecting)) turns.next(() => {
    if (!near.get(target)) return viewers.get(target)?.free();
    if (!viewers.has(target)) viewers.set(target, viewerOf(target));
    return viewers.get(target).start();
  });
}, {rootMargin: "400px 0px"});
for (const box of document.querySelectorAll(".viewer")) watch.observe(box);
"""


@functools.cache
def niivue() -> str:
    """The wheel's module with its class `Niivue` exported too, with its licence before it, gzipped, as text (base64).

    The wheel's own export is a notebook's widget, which wants a kernel to talk to.

    Raises:
      InputError: ipyniivue is not installed, or this version of it is made in another way.
    """
    found = importlib.util.find_spec("ipyniivue")
    if found is None or found.origin is None:
        raise InputError("The viewers need ipyniivue, which is not installed: pip install 'ipyniivue>=2.4'.")
    script = (Path(found.origin).parent / "static" / "widget.js").read_text(encoding="utf-8")
    files = importlib.metadata.files("ipyniivue") or []
    licence = "\n".join(f.read_text() for f in files if f.name == "LICENSE")
    text = f"/* {licence.replace('*/', '* /')} */\n{with_class(script)}"
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode("ascii")


def with_class(script: str) -> str:
    """The wheel's module with `Niivue` among its exports.

    Raises:
      InputError: the class, or the export, is not where it is in version 2.4.
    """
    made = re.search(r'"Creating new Niivue instance"\);.{0,120}?=\s*new ([\w$]+)\(', script, re.DOTALL)
    exported = re.search(r"export\s*\{\s*[\w$]+ as default\s*;?\s*\}", script)
    if made is None or exported is None:
        raise InputError(
            "This version of ipyniivue is not made as version 2.4 is, so the page's viewers cannot use it: "
            "pip install 'ipyniivue==2.4.*'."
        )
    at = exported.end() - 1
    return f"{script[:at]},{made[1]} as Niivue{script[at:]}"
