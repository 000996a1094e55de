// From numbers to pixels: colour maps, and one view that all panels share.

// Nine places of each map, dark to light, in even steps of lightness.
const MAPS = {
  value: [[68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141], [39, 173, 129], [92, 200, 99], [170, 220, 50], [253, 231, 37]],
  spread: [[12, 16, 38], [40, 30, 82], [84, 35, 104], [130, 45, 102], [176, 60, 88], [216, 84, 68], [241, 122, 50], [250, 174, 60], [247, 230, 140]],
};

export function colour(map, share) {
  const places = MAPS[map];
  const at = Math.min(1, Math.max(0, share)) * (places.length - 1);
  const low = Math.min(places.length - 2, Math.floor(at));
  return places[low].map((c, i) => c + (places[low + 1][i] - c) * (at - low));
}

export function range(...arrays) {
  let low = Infinity, high = -Infinity;
  for (const numbers of arrays) {
    for (const x of numbers) {
      if (x < low) low = x;
      if (x > high) high = x;
    }
  }
  return high > low ? [low, high] : [low - 0.5, low + 0.5];
}

// Paint numbers (rows, columns, channels) into a canvas of one pixel a cell.
// Three channels without a map are colours in [0, 1]; others are averaged and mapped.
export function raster({ numbers, rows, columns, channels, map, bounds, known }) {
  const canvas = new OffscreenCanvas(columns, rows);
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  const [low, high] = bounds ?? [0, 1];
  for (let cell = 0; cell < rows * columns; cell++) {
    const from = cell * channels, to = cell * 4;
    let rgb;
    if (!map) {
      rgb = [0, 1, 2].map((c) => 255 * numbers[from + Math.min(c, channels - 1)]);
    } else {
      let sum = 0;
      for (let c = 0; c < channels; c++) sum += numbers[from + c];
      rgb = colour(map, (sum / channels - low) / (high - low));
    }
    image.data.set([...rgb, known && !known[cell] ? 0 : 255], to);
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

export function legend(canvas, map) {
  canvas.width = 128;
  canvas.height = 1;
  const context = canvas.getContext("2d");
  for (let x = 0; x < 128; x++) {
    context.fillStyle = `rgb(${colour(map, x / 127).join()})`;
    context.fillRect(x, 0, 1, 1);
  }
}

// The part of the domain, in shares of its width and height, that every panel shows.
export class View {
  constructor(changed) {
    this.changed = changed;
    this.whole();
  }

  whole() {
    [this.left, this.top, this.size] = [0, 0, 1];
    this.changed?.();
  }

  zoom(factor, x = this.left + this.size / 2, y = this.top + this.size / 2) {
    const size = Math.min(1, Math.max(1 / 64, this.size / factor));
    this.left = x - (x - this.left) * (size / this.size);
    this.top = y - (y - this.top) * (size / this.size);
    this.size = size;
    this.keepInside();
  }

  move(dx, dy) {
    this.left += dx * this.size;
    this.top += dy * this.size;
    this.keepInside();
  }

  keepInside() {
    const most = 1 - this.size;
    this.left = Math.min(most, Math.max(0, this.left));
    this.top = Math.min(most, Math.max(0, this.top));
    this.changed?.();
  }

  // Between shares of the canvas and shares of the domain.
  inside(x, y) {
    return [this.left + x * this.size, this.top + y * this.size];
  }

  outside(x, y) {
    return [(x - this.left) / this.size, (y - this.top) / this.size];
  }
}

export function show(canvas, source, view, height) {
  const density = Math.min(2, window.devicePixelRatio || 1);
  const width = Math.max(32, Math.round((canvas.clientWidth || 280) * density));
  canvas.width = width;
  canvas.height = Math.max(16, Math.round(width * height));
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  if (!source) return context;
  const part = [view.left * source.width, view.top * source.height];
  const size = [view.size * source.width, view.size * source.height];
  context.drawImage(source, ...part, ...size, 0, 0, canvas.width, canvas.height);
  return context;
}
