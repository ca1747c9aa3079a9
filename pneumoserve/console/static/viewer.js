// The images of a study: brightness and contrast at full depth, zoom, move, invert, rotate. The server decodes.
"use strict";

// What one key changes: the window by a part of its width, the place by a part of the canvas.
const STEP = 0.05;
const ZOOM = 1.25;
const LARGEST_ZOOM = 32;
const KEYS = {
  ArrowUp: "brighten", ArrowDown: "darken", ArrowRight: "raiseContrast", ArrowLeft: "lowerContrast",
  "+": "zoomIn", "-": "zoomOut", i: "invert", r: "rotate", 0: "reset",
};
const HEAT_MAP_KEYS = { h: "toggleHeatMap", ",": "weaken", ".": "strengthen" };
// Blue and orange, which people tell apart who do not see red or green (Okabe and Ito); -1 and 1 of the map.
const COLORS = [[86, 180, 233], [230, 159, 0]];
const MOVES = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowRight: [1, 0], ArrowLeft: [-1, 0] };

class Viewer {
  constructor(figure) {
    this.figure = figure;
    this.canvas = figure.querySelector("canvas");
    this.state = figure.querySelector("output");
    this.problem = figure.querySelector(".problem");
    this.again = figure.querySelector("[data-do=load]");
    for (const button of figure.querySelectorAll("[data-do]")) {
      button.addEventListener("click", () => this[button.dataset.do]());
    }
    this.canvas.addEventListener("pointerdown", (event) => this.drag(event));
    this.canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    this.canvas.addEventListener("wheel", (event) => this.turnWheel(event), { passive: false });
    this.heatMapAt = figure.dataset.heatMap;
    this.opacity = 0.6;
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    this.load();
  }

  async load() {
    this.again.hidden = this.problem.hidden = true;
    this.state.value = "Loading";
    try {
      const answer = await this.ask(this.figure.dataset.url);
      this.show(JSON.parse(answer.headers.get("Image-Detail")), await answer.arrayBuffer());
    } catch (error) {
      this.tell(error);
      this.state.value = "No image";
      this.again.hidden = false;
    }
  }

  async ask(place) {
    const answer = await fetch(place, { headers: { "HX-Request": "true" } });
    if (!answer.ok) throw new Error(new DOMParser().parseFromString(await answer.text(), "text/html").body.textContent);
    return answer;
  }

  tell(error) {
    const away = "The console did not answer. Try again in a moment; what you typed stays.";
    this.problem.textContent = error instanceof TypeError ? away : error.message.trim();
    this.problem.hidden = false;
  }

  // Made when it is first asked for; then it is there or not.
  async toggleHeatMap() {
    const find = (what) => this.figure.querySelector(what);
    if (!this.detail || !find(".making").hidden) return;
    if (!this.heatMap) {
      find(".making").hidden = false;
      this.problem.hidden = true;
      try {
        const made = await (await this.ask(this.heatMapAt)).json();
        find(".sentence").textContent = made.sentence;
        this.heatMap = { edge: made.edge, picture: colorsOf(made.parts) };
      } catch (error) {
        this.tell(error);
        return;
      } finally {
        find(".making").hidden = true;
      }
    }
    this.heatMapShown = !this.heatMapShown;
    find(".made").hidden = !this.heatMapShown;
    find("[data-do=toggleHeatMap]").setAttribute("aria-pressed", this.heatMapShown);
    this.draw();
  }

  strengthen(by = 0.1) { this.opacity = Math.min(Math.max(this.opacity + by, 0.1), 1); this.draw(); }
  weaken() { this.strengthen(-0.1); }

  show(detail, data) {
    this.detail = detail;
    this.pixels = detail.bits === 8 ? new Uint8Array(data) : new Uint16Array(data);
    this.picture = new OffscreenCanvas(detail.width, detail.height);
    this.context = this.picture.getContext("2d");
    this.image = this.context.createImageData(detail.width, detail.height);
    this.reset();
    this.figure.dataset.shown = "true";
  }

  reset() {
    if (!this.detail) return;
    const { low, high } = this.detail;
    Object.assign(this, { level: (low + high) / 2, width: Math.max(high - low, 1), inverted: false });
    Object.assign(this, { zoom: 1, quarters: 0, x: 0, y: 0 });
    this.paint();
  }

  brighten(steps = 1) { this.setWindow(this.level - steps * STEP * this.width, this.width); }
  darken() { this.brighten(-1); }
  raiseContrast(steps = 1) { this.setWindow(this.level, this.width * (1 - STEP) ** steps); }
  lowerContrast() { this.raiseContrast(-1); }
  zoomIn() { this.zoomBy(ZOOM); }
  zoomOut() { this.zoomBy(1 / ZOOM); }
  invert() { this.inverted = !this.inverted; this.paint(); }
  rotate() { this.quarters = (this.quarters + 1) % 4; [this.x, this.y] = [-this.y, this.x]; this.draw(); }

  setWindow(level, width) {
    if (!this.detail) return;
    const most = 2 ** this.detail.bits;
    this.level = Math.min(Math.max(level, -most), 2 * most);
    this.width = Math.min(Math.max(width, 1), 4 * most);
    this.paint();
  }

  // Zoom about a point, measured from the canvas's middle; what is there stays there.
  zoomBy(factor, x = 0, y = 0) {
    const zoom = Math.min(Math.max(this.zoom * factor, 1), LARGEST_ZOOM);
    const grown = zoom / this.zoom;
    Object.assign(this, { zoom, x: x - grown * (x - this.x), y: y - grown * (y - this.y) });
    this.draw();
  }

  move(right, down) {
    this.x += right;
    this.y += down;
    this.draw();
  }

  drag(event) {
    if (!this.detail) return;
    this.canvas.focus();
    this.canvas.setPointerCapture(event.pointerId);
    const moves = event.button !== 0 || event.shiftKey;
    const { clientWidth, clientHeight } = this.canvas;
    const drag = ({ movementX, movementY }) => {
      if (moves) this.move(movementX, movementY);
      else this.setWindow(this.level + (movementY / clientHeight) * this.width, this.width * 4 ** (movementX / clientWidth));
    };
    this.canvas.addEventListener("pointermove", drag);
    this.canvas.addEventListener("lostpointercapture", () => this.canvas.removeEventListener("pointermove", drag), { once: true });
  }

  turnWheel(event) {
    event.preventDefault();
    const box = this.canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - box.x - box.width / 2, event.clientY - box.y - box.height / 2];
    this.zoomBy(event.deltaY < 0 ? ZOOM : 1 / ZOOM, x, y);
  }

  // Whether a key does something here; arrows do where the picture is what has the keys.
  press(key, shift, focused) {
    const does = KEYS[key] ?? (this.heatMapAt && HEAT_MAP_KEYS[key]);
    if (!this.detail || !does || (key.startsWith("Arrow") && !focused)) return false;
    const [right, down] = shift ? (MOVES[key] ?? [0, 0]) : [0, 0];
    if (right || down) this.move(right * STEP * this.canvas.clientWidth, down * STEP * this.canvas.clientHeight);
    else this[does]();
    return true;
  }

  // Gray values of the window, once a frame.
  paint() {
    if (!this.detail) return;
    this.stale = true;
    this.draw();
  }

  draw() {
    if (!this.detail || this.waiting) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = 0;
      if (this.stale) this.fill();
      this.place();
      const turned = this.quarters ? ` · turned ${90 * this.quarters}°` : "";
      const state = `Level ${Math.round(this.level)} · width ${Math.round(this.width)} · ${Math.round(100 * this.zoom)} %`;
      const heatMap = this.heatMapShown ? ` · heat map ${Math.round(100 * this.opacity)} %` : "";
      this.state.value = state + turned + (this.inverted ? " · inverted" : "") + heatMap;
    });
  }

  // Each pixel's gray by a table of all values there can be.
  fill() {
    const table = new Uint32Array(2 ** this.detail.bits);
    const low = this.level - this.width / 2;
    for (let value = 0; value < table.length; value++) {
      const part = Math.min(Math.max((value - low) / this.width, 0), 1);
      const gray = Math.round(255 * (this.inverted ? 1 - part : part));
      table[value] = 0xff000000 | (gray << 16) | (gray << 8) | gray;
    }
    const colors = new Uint32Array(this.image.data.buffer);
    for (let at = 0; at < colors.length; at++) colors[at] = table[this.pixels[at]];
    this.context.putImageData(this.image, 0, 0);
    this.stale = false;
  }

  place() {
    const { clientWidth, clientHeight } = this.canvas;
    const { width, height } = this.detail;
    const dots = window.devicePixelRatio;
    // Setting a side clears the canvas as well.
    Object.assign(this.canvas, { width: Math.round(clientWidth * dots), height: Math.round(clientHeight * dots) });
    const [across, down] = this.quarters % 2 ? [height, width] : [width, height];
    const scale = Math.min(clientWidth / across, clientHeight / down) * this.zoom;
    // A part of the picture stays in sight.
    const room = [(scale * across) / 2, (scale * down) / 2];
    this.x = Math.min(Math.max(this.x, -room[0]), room[0]);
    this.y = Math.min(Math.max(this.y, -room[1]), room[1]);
    const target = this.canvas.getContext("2d");
    target.scale(dots, dots);
    target.translate(clientWidth / 2 + this.x, clientHeight / 2 + this.y);
    target.rotate((this.quarters * Math.PI) / 2);
    target.scale(scale, scale);
    target.imageSmoothingQuality = "high";
    target.drawImage(this.picture, -width / 2, -height / 2);
    if (!this.heatMapShown) return;
    const { edge, picture } = this.heatMap;
    const within = 1 - 2 * edge;
    target.globalAlpha = this.opacity;
    target.drawImage(picture, (edge - 0.5) * width, (edge - 0.5) * height, within * width, within * height);
  }
}

// A picture of a map's parts, one pixel each: the more of a color, the less of the image shows through.
function colorsOf(parts) {
  const picture = new OffscreenCanvas(parts[0].length, parts.length);
  const context = picture.getContext("2d");
  const image = context.createImageData(picture.width, picture.height);
  parts.flat().forEach((part, at) => image.data.set([...COLORS[+(part > 0)], Math.round(255 * Math.abs(part))], 4 * at));
  context.putImageData(image, 0, 0);
  return picture;
}

const viewers = [...document.querySelectorAll("figure.viewer")].map((figure) => new Viewer(figure));
// Keys go to the picture that was used last.
let current = viewers[0];
for (const viewer of viewers) viewer.figure.addEventListener("focusin", () => { current = viewer; });

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("textarea, input:not([type=radio], [type=checkbox])");
  if (typing || event.ctrlKey || event.metaKey || event.altKey || !current) return;
  const focused = current.canvas === event.target;
  if (event.key === "v") viewers[(viewers.indexOf(current) + focused) % viewers.length].canvas.focus();
  else if (!current.press(event.key, event.shiftKey, focused)) return;
  event.preventDefault();
});
