// What was observed and can be edited: the pixels of a picture, or stations on a map.

import { raster } from "./draw.js";

const UNDO = 30;

export function fit(bitmap, most) {
  const factor = most / Math.max(bitmap.width, bitmap.height);
  return [bitmap.height, bitmap.width].map((side) => Math.max(1, Math.round(side * factor)));
}

// Numbers in [0, 1) that follow from a seed.
function random(seed) {
  let a = (seed + 1) * 2654435761;
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

const twin = (observed, own) =>
  Object.assign(Object.create(Object.getPrototypeOf(observed)), observed, { past: [] }, own);

export class Picture {
  kind = "image";

  constructor(bitmap, most, name) {
    [this.rows, this.columns] = fit(bitmap, most);
    this.name = name.replace(/\.[^.]*$/, "") + ".png";
    this.aspect = this.rows / this.columns;
    const canvas = new OffscreenCanvas(this.columns, this.rows);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, 0, 0, this.columns, this.rows);
    this.pixels = context.getImageData(0, 0, this.columns, this.rows).data;
    this.colours = Float32Array.from({ length: 3 * this.rows * this.columns }, (_, i) =>
      this.pixels[4 * Math.floor(i / 3) + (i % 3)] / 255
    );
    this.given = Uint8Array.from({ length: this.rows * this.columns }, (_, i) =>
      this.pixels[4 * i + 3] > 127 ? 1 : 0
    );
    this.known = this.given.slice();
    this.past = [];
  }

  get missing() {
    return this.known.reduce((sum, k) => sum - k, this.known.length);
  }

  describe() {
    const share = (100 * this.missing) / this.known.length;
    return `${this.columns} × ${this.rows} pixels, ${share.toFixed(share < 10 ? 1 : 0)} % missing`;
  }

  lacks() {
    if (!this.missing) return "Nothing is missing: erase something first.";
    return this.missing === this.known.length ? "Nothing is left: restore something first." : "";
  }

  remember() {
    this.past.push(this.known.slice());
    if (this.past.length > UNDO) this.past.shift();
  }

  undo() {
    const last = this.past.pop();
    if (last) this.known = last;
    return Boolean(last);
  }

  // As it is now, whatever is painted later.
  copy() {
    return twin(this, { known: this.known.slice() });
  }

  equals(other) {
    return this.known.every((known, cell) => known === other.known[cell]);
  }

  paint([x, y], radius, restore) {
    const [cx, cy] = [x * this.columns - 0.5, y * this.rows - 0.5];
    const reach = Math.max(0.5, radius);
    for (let r = Math.max(0, Math.ceil(cy - reach)); r <= Math.min(this.rows - 1, cy + reach); r++) {
      for (let c = Math.max(0, Math.ceil(cx - reach)); c <= Math.min(this.columns - 1, cx + reach); c++) {
        if (radius > 0.5 && (r - cy) ** 2 + (c - cx) ** 2 > reach ** 2) continue;
        const cell = r * this.columns + c;
        this.known[cell] = restore ? this.given[cell] : 0;
      }
    }
  }

  thin(share, seed) {
    if (!share) return;
    const draw = random(seed);
    this.known = this.given.map((k) => (draw() < share ? k : 0));
  }

  restore() {
    this.known = this.given.slice();
  }

  raster() {
    const { rows, columns, known } = this;
    return raster({ numbers: this.colours, rows, columns, channels: 3, known });
  }

  async file() {
    const canvas = new OffscreenCanvas(this.columns, this.rows);
    const context = canvas.getContext("2d");
    const image = context.createImageData(this.columns, this.rows);
    image.data.set(this.pixels);
    for (let cell = 0; cell < this.known.length; cell++) image.data[4 * cell + 3] = 255 * this.known[cell];
    context.putImageData(image, 0, 0);
    return { blob: await canvas.convertToBlob({ type: "image/png" }), name: this.name };
  }

  ask() {
    return {};
  }

  settle() {}

  turn(numbers) {
    return numbers;
  }

  grid(facts) {
    return { rows: facts.shape[0], columns: facts.shape[1], channels: facts.channels };
  }

  where([x, y]) {
    const [r, c] = [Math.floor(y * this.rows), Math.floor(x * this.columns)];
    const cell = r * this.columns + c;
    const rgb = [0, 1, 2].map((k) => this.colours[3 * cell + k].toFixed(3)).join(" ");
    return `row ${r}, column ${c}: ${this.known[cell] ? `observed ${rgb}` : "missing"}`;
  }

  // Error where pixels were erased that the file has.
  score(numbers, facts) {
    let sum = 0, count = 0;
    for (let cell = 0; cell < this.known.length; cell++) {
      if (this.known[cell] || !this.given[cell]) continue;
      for (let c = 0; c < 3; c++) {
        const found = numbers[facts.channels * cell + Math.min(c, facts.channels - 1)];
        sum += (found - this.colours[3 * cell + c]) ** 2;
        count += 1;
      }
    }
    return count && sum ? `${(-10 * Math.log10(sum / count)).toFixed(2)} dB` : "";
  }
}

const EAST = /^(lon|x|east)/i;

export class Stations {
  kind = "points";
  rows = 64;
  columns = 64;

  constructor({ name, axes, units, places, values, low, high, quantities, rows }) {
    this.name = name.replace(/\.[^.]*$/, "") + ".csv";
    Object.assign(this, { axes, units, low, high });
    this.stations = places.map((place, i) => ({ place, value: values[i] }));
    this.empty = Math.max(0, rows - places.length);
    const plain = quantities.length && quantities.every((q) => q && !axes.includes(q));
    this.names = plain ? quantities : (values[0] ?? [0]).map((_, i) => `value ${i + 1}`);
    // an axis that points east is drawn to the right, the other one upwards, rows of arrays down
    this.right = EAST.test(axes[0]) && !EAST.test(axes[1]) ? 0 : 1;
    this.up = 1 - this.right;
    this.past = [];
    this.shape();
  }

  // Height over width of the domain on the screen.
  shape() {
    const [dx, dy] = [this.right, this.up].map((axis) => this.high[axis] - this.low[axis]);
    const round = /^lat/i.test(this.axes[this.up]);
    const squeeze = round ? Math.cos(((this.low[this.up] + this.high[this.up]) / 2) * (Math.PI / 180)) : 1;
    this.aspect = Math.min(1.6, Math.max(0.4, dy / (dx * Math.max(0.1, squeeze))));
  }

  get upwards() {
    return this.framed;
  }

  get framed() {
    return this.low.some((x) => x !== -1) || this.high.some((x) => x !== 1);
  }

  share(place) {
    const along = (axis) => (place[axis] - this.low[axis]) / (this.high[axis] - this.low[axis]);
    const y = along(this.up);
    return [along(this.right), this.upwards ? 1 - y : y];
  }

  place([x, y]) {
    const place = [];
    const at = (axis, share) => this.low[axis] + share * (this.high[axis] - this.low[axis]);
    place[this.right] = at(this.right, x);
    place[this.up] = at(this.up, this.upwards ? 1 - y : y);
    return place;
  }

  middle() {
    const sorted = this.stations.map((s) => s.value[0]).sort((a, b) => a - b);
    return sorted[Math.floor(sorted.length / 2)] ?? 0;
  }

  describe() {
    const empty = this.empty && `; ${this.empty} ${this.empty === 1 ? "row has" : "rows have"} no value`;
    return `${this.stations.length} stations of ${this.names[0]} over ${this.axes.join(" and ")}${empty || ""}`;
  }

  lacks() {
    return this.stations.length < 3 ? "Add at least three stations." : "";
  }

  remember() {
    this.past.push([...this.stations]);
    if (this.past.length > UNDO) this.past.shift();
  }

  undo() {
    const last = this.past.pop();
    if (last) this.stations = last;
    return Boolean(last);
  }

  // As it is now, whatever is added or removed later.
  copy() {
    return twin(this, { stations: [...this.stations] });
  }

  equals({ stations }) {
    return stations.length === this.stations.length && stations.every((s, i) => s === this.stations[i]);
  }

  add(at, value) {
    const channels = this.names.length;
    this.stations.push({ place: this.place(at), value: Array(channels).fill(value) });
  }

  remove([x, y]) {
    let best = -1, least = 0.05;
    this.stations.forEach((station, i) => {
      const [sx, sy] = this.share(station.place);
      const away = Math.hypot(sx - x, (sy - y) * this.aspect);
      if (away < least) [best, least] = [i, away];
    });
    if (best >= 0) this.stations.splice(best, 1);
  }

  async file() {
    const quote = (name) => `"${name.replaceAll('"', '""')}"`;
    const lines = this.stations.map((s) => [...s.place, ...s.value].join());
    const text = [[...this.axes, ...this.names].map(quote).join(), ...lines].join("\n");
    return { blob: new Blob([text], { type: "text/csv" }), name: this.name };
  }

  ask(cells) {
    const size = [];
    size[this.right] = Math.round(this.aspect <= 1 ? cells : cells / this.aspect);
    size[this.up] = Math.round(this.aspect <= 1 ? cells * this.aspect : cells);
    return { size, coords: this.axes, value: this.names };
  }

  settle(facts) {
    if (!facts.frame) return;
    [this.low, this.high] = [facts.frame.low, facts.frame.high];
    this.shape();
  }

  grid(facts) {
    return { rows: facts.shape[this.up], columns: facts.shape[this.right], channels: facts.channels };
  }

  // Lay numbers out as they are drawn: rows from top to bottom.
  turn(numbers, facts) {
    const { rows, columns, channels } = this.grid(facts);
    const turned = new Float32Array(numbers.length);
    for (let r = 0; r < rows; r++) {
      const up = this.upwards ? rows - 1 - r : r;
      for (let c = 0; c < columns; c++) {
        const from = this.up === 0 ? up * columns + c : c * rows + up;
        for (let k = 0; k < channels; k++) {
          turned[(r * columns + c) * channels + k] = numbers[from * channels + k];
        }
      }
    }
    return turned;
  }

  where(at) {
    const place = this.place(at);
    const unit = (axis) => this.units[axis].replace(/^degrees_(.).*$/, (_, side) => `°${side.toUpperCase()}`);
    return this.axes
      .map((name, axis) => `${name} ${Number(place[axis].toPrecision(5))} ${unit(axis)}`.trim())
      .join(", ");
  }
}
