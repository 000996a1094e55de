// The page: what was observed, what is asked for, and what came back.

import * as api from "./api.js";
import * as data from "./observed.js";
import { View, colour, legend, range, raster, show } from "./draw.js";
import { Turns } from "./turns.js";

const $ = (id) => document.getElementById(id);
const NOTHING = { upload: null, bitmap: null, observed: null, result: null, bounds: null };
const state = { ...NOTHING, note: "", cursor: null, frame: 0 };
let options, panels = [], pending = false, playing = null;
const view = new View(() => redraw());
const turns = new Turns(() => refresh());

// ---- panels -------------------------------------------------------------------------------

class Panel {
  constructor({ title, note = "", source, map, bounds, unit = "", overlay, editor }) {
    Object.assign(this, { source, overlay, editor });
    this.box = document.createElement("figure");
    this.box.innerHTML = `<figcaption><span></span><small></small></figcaption>
      <div class="frame"><canvas tabindex="0"></canvas></div>`;
    this.canvas = this.box.querySelector("canvas");
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", title);
    this.name(title, note);
    if (!editor) this.canvas.style.touchAction = "pan-y";
    if (map && bounds) this.addScale(map, bounds, unit);
    listen(this);
  }

  name(title, note) {
    this.box.querySelector("span").textContent = title;
    this.box.querySelector("small").textContent = note;
  }

  addScale(map, [low, high], unit) {
    const scale = document.createElement("div");
    scale.className = "scale";
    scale.innerHTML = "<span></span><canvas></canvas><span></span>";
    legend(scale.querySelector("canvas"), map);
    const ends = scale.querySelectorAll("span");
    ends[0].textContent = digits(low);
    ends[1].textContent = `${digits(high)} ${unit}`;
    this.box.append(scale);
  }

  draw() {
    const context = show(this.canvas, this.source, view, state.observed?.aspect ?? 1);
    this.overlay?.(context);
    if (!state.cursor) return;
    const [x, y] = view.outside(...state.cursor);
    const { width, height } = this.canvas;
    for (const [style, line] of [["#000a", 3], ["#fffc", 1]]) {
      context.strokeStyle = style;
      context.lineWidth = line;
      context.beginPath();
      context.arc(x * width, y * height, this.editor ? Math.max(5, this.reach()) : 6, 0, 7);
      context.stroke();
    }
  }

  reach() {
    if (state.observed.kind !== "image") return 6;
    return ($("brush").value / 2 / state.observed.columns / view.size) * this.canvas.width;
  }
}

function redraw() {
  if (pending) return;
  pending = true;
  requestAnimationFrame(() => {
    pending = false;
    panels.forEach((panel) => panel.draw());
    readout();
  });
}

function lay(list) {
  stop();
  panels = list;
  $("panels").replaceChildren(...panels.map((panel) => panel.box));
  redraw();
}

const digits = (x) => (x === 0 ? "0" : Number(x.toPrecision(4)).toString());
const seconds = (s) => (s < 0.0995 ? `${Math.round(1000 * s)} ms` : `${s.toPrecision(2)} s`);

function editorPanel() {
  const title = state.observed.kind === "image" ? "Observed" : "Stations";
  return new Panel({
    title, editor: true,
    source: state.observed.raster?.(),
    overlay: (context) => dots(context, 5, state.observed),
  });
}

// Stations, in the colours of their values.
function dots(context, radius, { kind, stations }) {
  if (kind !== "points") return;
  const [low, high] = state.bounds ?? range(stations.map((s) => s.value[0]));
  for (const station of stations) {
    const [x, y] = view.outside(...state.observed.share(station.place));
    context.beginPath();
    context.arc(x * context.canvas.width, y * context.canvas.height, radius, 0, 7);
    context.fillStyle = `rgb(${colour("value", (station.value[0] - low) / (high - low)).join()})`;
    context.fill();
    context.strokeStyle = "#fff";
    context.stroke();
  }
}

// ---- pointer and keys ---------------------------------------------------------------------

function listen(panel) {
  const { canvas } = panel;
  let drag = null;
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  };
  canvas.addEventListener("pointerdown", (event) => {
    const at = place(event);
    if (panel.editor && tool() !== "move") {
      canvas.setPointerCapture(event.pointerId);
      state.observed.remember();
      drag = { edit: true };
      edit(view.inside(...at));
    } else if (event.pointerType === "mouse" || panel.editor) {
      canvas.setPointerCapture(event.pointerId);
      drag = { from: at };
    }
  });
  canvas.addEventListener("pointermove", (event) => {
    const at = place(event);
    state.cursor = view.inside(...at);
    if (drag?.edit && state.observed.kind === "image") edit(state.cursor);
    else if (drag?.from) {
      view.move(drag.from[0] - at[0], drag.from[1] - at[1]);
      drag.from = at;
    }
    redraw();
  });
  const end = () => (drag = null);
  canvas.addEventListener("pointerup", end);
  canvas.addEventListener("pointercancel", end);
  canvas.addEventListener("pointerleave", () => {
    if (!drag) state.cursor = null;
    redraw();
  });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    view.zoom(event.deltaY < 0 ? 1.25 : 0.8, ...view.inside(...place(event)));
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => press(event, panel));
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function press(event, panel) {
  if (!state.observed) return;
  if (event.key in ARROWS) {
    const [dx, dy] = ARROWS[event.key];
    if (event.shiftKey) view.move(dx / 8, dy / 8);
    else {
      const [x, y] = state.cursor ?? view.inside(0.5, 0.5);
      const { columns = 48, rows = 48 } = state.observed;
      const inside = (v) => Math.min(0.9999, Math.max(0, v));
      state.cursor = [inside(x + dx / columns), inside(y + dy / rows)];
    }
  } else if (event.key === "+" || event.key === "=") view.zoom(1.5, ...(state.cursor ?? []));
  else if (event.key === "-") view.zoom(1 / 1.5, ...(state.cursor ?? []));
  else if (event.key === "0") view.whole();
  else if ((event.key === " " || event.key === "Enter") && panel.editor && state.cursor) {
    state.observed.remember();
    edit(state.cursor);
  } else return;
  event.preventDefault();
  redraw();
}

const tool = () =>
  document.querySelector(
    `input[name=${state.observed?.kind === "image" ? "tool" : "station"}]:checked`
  ).value;

function edit(at) {
  const { observed } = state;
  if (observed.kind === "image") observed.paint(at, $("brush").value / 2, tool() === "restore");
  else if (tool() === "add") observed.add(at, Number($("reading").value) || 0);
  else if (tool() === "remove") observed.remove(at);
  changed();
}

function changed() {
  panels[0].source = state.observed.raster?.();
  state.note = "";
  refresh();
  redraw();
}

// ---- what the page says -------------------------------------------------------------------

const lacks = () => (state.observed ? state.observed.lacks() : "Nothing is observed yet.");

// Show what is going on, and let start only what can.
function refresh() {
  const reading = turns.phase === "reading";
  $("run").disabled = turns.phase !== "ready" || Boolean(lacks());
  $("cancel").hidden = $("progress").hidden = !turns.busy;
  for (const id of ["paint", "place", "panels", "keepsakes"]) $(id).inert = reading;
  if (turns.share > 0) $("progress").value = turns.share;
  else $("progress").removeAttribute("value");
  $("given").textContent = reading ? turns.doing : given();
  $("status").textContent = turns.busy ? (reading ? "" : turns.doing) : state.note || summary();
}

function given() {
  const { upload, observed } = state;
  if (observed) return `${upload.name}: ${lacks() || observed.describe()}`;
  return upload ? `${upload.name}: columns ${upload.columns.join(", ")}` : "";
}

function summary() {
  if (!state.result) return "";
  const { facts, asked } = state.result;
  const evaluations = `${facts.nfe} evaluation${facts.nfe === 1 ? "" : "s"}`;
  const done = `${facts.observed.toLocaleString("en")} observed, ${facts.shape.join(" × ")} cells, ${evaluations}`;
  return state.observed.equals(asked) ? done : `${done}; changed since`;
}

function complain(message) {
  $("error").hidden = !message;
  $("error").textContent = message;
  if (message) $("error").scrollIntoView({ block: "nearest" });
}

// ---- bringing data ------------------------------------------------------------------------

// Read something; until that is done nothing can be reconstructed, and what is stale is dropped.
async function take(name, ask) {
  complain("");
  state.note = "";
  const turn = turns.begin("reading", `reading ${name} …`);
  try {
    const facts = await ask(turn);
    const bitmap = facts.kind === "image" ? await api.picture(facts.id, turn) : null;
    if (turn.aborted) return;
    open(facts, bitmap);
  } catch (error) {
    if (turn.aborted) return;
    clear();
    complain(error.message);
  }
  turns.finish(turn, state.observed ? "ready" : "empty");
}

function clear() {
  Object.assign(state, NOTHING);
  for (const id of ["keepsakes", "paint", "place"]) $(id).hidden = true;
  lay([]);
}

function open(facts, bitmap) {
  clear();
  Object.assign(state, { upload: facts, bitmap });
  $("paint").hidden = facts.kind !== "image";
  $("place").hidden = facts.kind !== "points";
  offerBaselines(facts);
  offerModels(facts.kind);
  if (bitmap) openImage(bitmap);
  else openTable(facts);
}

function openImage(bitmap) {
  const most = Math.max(bitmap.width, bitmap.height);
  const sizes = [32, 48, 64, 96, 128, 192, 256, 384].filter((n) => n < most).concat(most);
  const start = [...sizes].reverse().find((n) => n <= 128) ?? sizes[0];
  $("resolution").replaceChildren(...sizes.map((n) => new Option(label(bitmap, n), n, n === start, n === start)));
  resize();
}

function label(bitmap, most) {
  const [rows, columns] = data.fit(bitmap, most);
  return `${columns} × ${rows}`;
}

function resize() {
  state.observed = new data.Picture(state.bitmap, Number($("resolution").value), state.upload.name);
  if (!state.observed.missing) {
    $("keep").value ||= "0.2";
    thin();
  }
  begin();
}

function thin() {
  state.observed.thin(Number($("keep").value), Number($("seed").value));
}

function begin() {
  view.whole();
  state.result = state.bounds = null;
  $("keepsakes").hidden = true;
  lay([editorPanel()]);
  changed();
}

function openTable(facts) {
  $("columns").hidden = Boolean(facts.places) || !facts.columns.length;
  if (!facts.places) {
    $("coords").placeholder = facts.columns.slice(0, 2).join(", ");
    $("value").placeholder = facts.columns.at(-1);
    return complain(facts.refusal ?? `${facts.hint} Name the columns above.`);
  }
  if (facts.axes.length !== 2) {
    throw new Error(
      `${facts.name} has ${facts.axes.length} coordinates; the page draws maps of two. ` +
      "`sparsefield reconstruct` takes one to three."
    );
  }
  state.observed = new data.Stations(facts);
  $("reading").value = digits(state.observed.middle());
  begin();
}

const list = (text) => text.split(/[,\s]+/).filter(Boolean);

async function useColumns() {
  const input = (id) => list($(id).value || $(id).placeholder);
  const chosen = { coords: input("coords"), value: input("value") };
  const { upload } = state;
  await take(upload.name, (turn) =>
    api.stations(upload.id, chosen, turn).then(
      (found) => ({ ...upload, ...found }),
      (error) => ({ ...upload, refusal: error.message }) // to be asked again
    )
  );
}

// ---- choices ------------------------------------------------------------------------------

function offerBaselines({ kind, baselines = [] }) {
  const usual = { image: ["nearest", "tps"], points: ["nearest", "kriging"] }[kind];
  $("baselines").replaceChildren(
    ...baselines.map((name) => {
      const chip = document.createElement("label");
      chip.className = "chip";
      chip.innerHTML = `<input type="checkbox"> <span></span>`;
      chip.firstElementChild.value = name;
      chip.firstElementChild.checked = usual.includes(name);
      chip.lastElementChild.textContent = name;
      return chip;
    })
  );
}

function offerModels(kind) {
  const usual = { image: "photographs", points: "universal" }[kind];
  const first = options.models.includes(usual) ? usual : options.models[0];
  $("model").replaceChildren(
    ...options.models.map((name) => new Option(name, name, name === first, name === first))
  );
}

function chosen() {
  const number = (id) => Number($(id).value) || 0;
  const boxes = [...$("baselines").querySelectorAll("input:checked")];
  return {
    model: $("model").value,
    samples: number("count"),
    seed: number("seed"),
    baselines: boxes.map((box) => box.value),
    ...($("noise").value === "" ? {} : { noise: number("noise") }),
    ...state.observed.ask(number("cells")),
  };
}

// ---- the job ------------------------------------------------------------------------------

// Reconstruct what is observed now by what is chosen now, whatever is changed meanwhile.
async function run(event) {
  event.preventDefault();
  if (turns.phase !== "ready" || lacks()) return;
  complain("");
  state.note = "";
  const [asked, wanted] = [state.observed.copy(), chosen()];
  const turn = turns.begin("working", "sending …");
  try {
    const last = await work(asked, wanted, turn);
    if (turn.aborted) return;
    if (last.state === "failed") complain(last.error);
    if (last.state === "cancelled") state.note = "cancelled";
  } catch (error) {
    if (turn.aborted) return;
    complain(error.message);
  }
  turns.finish(turn, "ready");
}

async function work(asked, wanted, turn) {
  const { blob, name } = await asked.file();
  // not ended by the signal: the server may have begun, and only its answer says what to cancel
  const { id } = await api.submit(blob, name, wanted);
  const drop = () => api.cancel(id).catch(() => {});
  if (turn.aborted) return drop();
  turn.addEventListener("abort", drop);
  const last = await api.follow(id, (job) => turns.report(turn, ...progress(job)), turn);
  if (last.state === "done") await present(last, asked, turn);
  return last;
}

function progress(job) {
  if (job.state === "running") return [job.doing, job.share];
  if (job.state !== "queued") return [""];
  return [`waiting, ${job.ahead ? `${job.ahead} before you` : "next in line"}`];
}

function cancel() {
  turns.stop();
  state.note = "cancelled";
  refresh();
}

// ---- results ------------------------------------------------------------------------------

async function present({ id, result: facts }, asked, turn) {
  const wanted = facts.arrays.filter((name) => name !== "steps");
  const found = await Promise.all(wanted.map((name) => api.array(id, name, turn)));
  if (turn.aborted) return;
  const { observed } = state;
  for (const each of [observed, asked]) each.settle(facts);
  const arrays = Object.fromEntries(wanted.map((name, i) => [name, observed.turn(found[i], facts)]));
  state.result = { id, facts, asked, arrays, grid: observed.grid(facts) };
  const picture = facts.image && facts.channels === 3;
  const shown = Object.keys(facts.methods).slice(1).map((name) => arrays[name]);
  state.bounds = picture ? null : range(arrays.mean, ...shown.map((a) => a));
  const common = picture ? {} : { map: "value", bounds: state.bounds };
  const panel = (name, title, note, how = common) =>
    new Panel({
      title, note, ...how,
      source: raster({ numbers: arrays[name], ...state.result.grid, ...how }),
      overlay: (context) => dots(context, 2.5, asked),
    });
  const method = (name, array) => {
    const { seconds: taken, note } = facts.methods[name];
    return [asked.score?.(arrays[array], facts), seconds(taken), note].filter(Boolean).join(" · ");
  };
  const made = [editorPanel(), panel("mean", `${facts.model}: mean`, method(facts.model, "mean"))];
  if (arrays.std) {
    const bounds = [0, range(arrays.std)[1] || 1];
    made.push(panel("std", "Standard deviation", facts.spread, { map: "spread", bounds }));
  }
  if (facts.samples) made.push(samplePanel(common));
  for (const name of Object.keys(facts.methods).slice(1)) made.push(panel(name, name, method(name, name)));
  lay(made);
  offerDownloads(id);
  if (matchMedia("(max-width: 760px)").matches) made[1].box.scrollIntoView();
}

function samplePanel(how) {
  const { result } = state;
  const { facts, asked, arrays, grid, id } = result;
  const panel = new Panel({ title: "Sample 1", ...how, overlay: (context) => dots(context, 2.5, asked) });
  const tools = document.createElement("div");
  tools.className = "tools";
  tools.innerHTML = `<button type="button" data-what="samples">Play</button>
    <input type="range" min="0" max="${facts.samples - 1}" value="0" aria-label="Sample">
    <button type="button" data-what="steps" ${facts.steps ? "" : "hidden"}>From noise</button>`;
  panel.box.append(tools);
  const slider = tools.querySelector("input");
  const put = (numbers, title) => {
    panel.source = raster({ numbers, ...grid, ...how });
    panel.name(title, "");
    redraw();
  };
  const one = (k) => {
    slider.value = state.frame = k;
    put(arrays[`sample ${k}`], `Sample ${k + 1} of ${facts.samples}`);
  };
  slider.addEventListener("input", () => { stop(); one(Number(slider.value)); });
  tools.querySelector("[data-what=samples]").addEventListener("click", (event) =>
    play(event.target, "Play", 700, (tick) => one((state.frame + (tick ? 1 : 0)) % facts.samples))
  );
  tools.querySelector("[data-what=steps]").addEventListener("click", async (event) => {
    try {
      arrays.steps ??= await api.array(id, "steps");
    } catch (error) {
      complain(error.message);
    }
    if (state.result !== result || !arrays.steps) return;
    const size = arrays.steps.length / facts.steps;
    play(event.target, "From noise", 350, (tick) => {
      const k = tick % (facts.steps + 4);
      if (k >= facts.steps) return;
      const step = state.observed.turn(arrays.steps.slice(k * size, (k + 1) * size), facts);
      put(step, `Sample 1, evaluation ${k + 1} of ${facts.steps}`);
    });
  });
  one(0);
  return panel;
}

function play(button, name, pause, step) {
  const same = playing?.button === button;
  stop();
  if (same) return;
  let tick = 0;
  button.textContent = "Stop";
  step(tick);
  playing = { button, name, timer: setInterval(() => step(++tick), pause) };
}

function stop() {
  if (!playing) return;
  clearInterval(playing.timer);
  playing.button.textContent = playing.name;
  playing = null;
}

function offerDownloads(id) {
  const names = {
    image: { ".npz": "NPZ", ".png": "PNG", ".nc": "NetCDF" },
    points: { ".npz": "NPZ", ".csv": "CSV", ".nc": "NetCDF" },
  }[state.observed.kind];
  const possible = options.outputs.filter((suffix) => suffix in names);
  $("downloads").replaceChildren(
    ...possible.map((suffix) => {
      const link = document.createElement("a");
      link.href = `/api/jobs/${id}/field${suffix}`;
      link.download = `field${suffix}`;
      link.textContent = names[suffix];
      return link;
    }),
    pictureButton()
  );
  $("keepsakes").hidden = false;
}

// All panels as they are shown, in one picture.
function pictureButton() {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "PNG of the panels";
  button.addEventListener("click", () => {
    const shown = panels.map((panel) => panel.canvas);
    const [width, height] = [shown[0].width + 12, shown[0].height + 34];
    const sheet = document.createElement("canvas");
    const across = Math.min(3, shown.length);
    sheet.width = across * width + 12;
    sheet.height = Math.ceil(shown.length / across) * height + 12;
    const context = sheet.getContext("2d");
    context.fillStyle = "#fff";
    context.fillRect(0, 0, sheet.width, sheet.height);
    context.fillStyle = "#14242e";
    context.font = "16px system-ui, sans-serif";
    shown.forEach((canvas, k) => {
      const [x, y] = [12 + (k % across) * width, 8 + Math.floor(k / across) * height];
      context.fillText(panels[k].box.querySelector("span").textContent, x, y + 18);
      context.drawImage(canvas, x, y + 26);
    });
    sheet.toBlob((blob) => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(blob);
      link.download = "panels.png";
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
  });
  return button;
}

function readout() {
  const { cursor, observed, result } = state;
  if (!cursor || !observed) return;
  const parts = [observed.where(cursor)];
  if (result) {
    const { rows, columns, channels } = result.grid;
    const cell = Math.floor(cursor[1] * rows) * columns + Math.floor(cursor[0] * columns);
    const at = (name) => [...result.arrays[name].slice(cell * channels, (cell + 1) * channels)];
    const text = (numbers) => numbers.map((x) => digits(Number(x.toFixed(6)))).join(" ");
    const { lower, upper, std } = result.arrays;
    let mean = `${result.facts.model} ${text(at("mean"))}`;
    if (lower) mean += ` (90 % from ${text(at("lower"))} to ${text(at("upper"))})`;
    else if (std) mean += ` ± ${text(at("std"))}`;
    parts.push(mean);
    for (const name of Object.keys(result.facts.methods).slice(1)) parts.push(`${name} ${text(at(name))}`);
  }
  $("readout").textContent = parts.join("  ·  ");
}

// ---- beginning ----------------------------------------------------------------------------

function connect() {
  const drop = $("drop");
  $("file").addEventListener("change", (event) => {
    bring(event.target.files[0]);
    event.target.value = "";
  });
  for (const name of ["dragover", "dragenter"]) {
    document.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("over"); });
  }
  document.addEventListener("dragleave", () => drop.classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    bring(event.dataTransfer.files[0]);
  });
  drop.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") $("file").click();
  });
  $("controls").addEventListener("submit", run);
  $("cancel").addEventListener("click", cancel);
  $("brush").addEventListener("input", (event) => {
    document.querySelector("output[for=brush]").textContent = event.target.value;
  });
  $("resolution").addEventListener("change", () => {
    turns.stop("ready"); // a job of the other pixels could not be drawn
    resize();
  });
  $("keep").addEventListener("change", () => { state.observed.remember(); thin(); changed(); });
  $("whole").addEventListener("click", () => {
    state.observed.remember();
    state.observed.restore();
    $("keep").value = "";
    changed();
  });
  for (const id of ["undo", "undo-station"]) $(id).addEventListener("click", undo);
  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches("input:not([type=range]):not([type=radio]), select");
    if (!typing && (event.ctrlKey || event.metaKey) && event.key === "z") { event.preventDefault(); undo(); }
  });
  $("apply").addEventListener("click", useColumns);
  $("zoom-in").addEventListener("click", () => view.zoom(1.5));
  $("zoom-out").addEventListener("click", () => view.zoom(1 / 1.5));
  $("zoom-whole").addEventListener("click", () => view.whole());
  new ResizeObserver(redraw).observe($("panels"));
}

function bring(file) {
  if (file) take(file.name, (turn) => api.upload(file, turn));
}

function undo() {
  if (turns.phase !== "reading" && state.observed?.undo()) changed();
}

async function start() {
  connect();
  options = await api.options();
  $("version").textContent = options.version;
  $("kinds").textContent = "image, table or archive, up to " + options.most_bytes / 2 ** 20 + " MiB";
  $("file").accept = options.inputs.join();
  $("count").max = options.most_samples;
  $("samples").append(
    ...options.samples.map((name) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = name;
      button.addEventListener("click", () => take(name, (turn) => api.sample(name, turn)));
      return button;
    })
  );
  offerModels("image");
}

start().catch((error) => complain(error.message));
