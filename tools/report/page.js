"use strict";

const ROWS = 200;
const buttons = [...document.querySelectorAll("nav button")];
const search = document.querySelector("input[type=search]");
const found = document.querySelector("output");

function data(section, name) {
  return JSON.parse(section.querySelector(`script.${name}`).textContent);
}

// --- the table of calls: only the first rows of many are in the document

class Calls {
  constructor(section) {
    this.rows = this.matching = data(section, "call-data");
    this.table = section.querySelector(".calls");
    this.more = section.querySelector(".more");
    this.more.addEventListener("click", () => this.append());
    for (const heading of this.table.tHead.rows[0].cells) {
      heading.addEventListener("click", () => this.sort(heading));
    }
    this.restart();
  }

  filter(query) {
    const matches = (row) => row.slice(1, 4).some((text) => text.toLowerCase().includes(query));
    this.matching = query ? this.rows.filter(matches) : this.rows;
    this.restart();
    return this.matching.length;
  }

  sort(heading) {
    const column = heading.cellIndex;
    const sign = heading.ariaSort === "ascending" ? -1 : 1;
    for (const other of heading.parentNode.cells) other.ariaSort = null;
    heading.ariaSort = sign > 0 ? "ascending" : "descending";
    const compare = ({ [column]: a }, { [column]: b }) => (a < b ? -sign : a > b ? sign : 0);
    this.rows.sort(compare);
    if (this.matching !== this.rows) this.matching.sort(compare);
    this.restart();
  }

  restart() {
    this.table.tBodies[0].replaceChildren();
    this.append();
  }

  append() {
    const body = this.table.tBodies[0];
    const shown = body.rows.length;
    for (const values of this.matching.slice(shown, shown + ROWS)) {
      const row = body.insertRow();
      for (const value of values) row.insertCell().textContent = value.toLocaleString("en");
    }
    this.more.hidden = body.rows.length === this.matching.length;
  }
}

// --- the figure

// Colours that follow the page's, light or dark.
function theme() {
  const style = getComputedStyle(document.documentElement);
  const family = getComputedStyle(document.body).fontFamily;
  const changes = { "font.color": style.getPropertyValue("--text"), "font.family": family };
  for (const axis of ["xaxis", "xaxis2", "yaxis", "yaxis2"]) {
    changes[`${axis}.gridcolor`] = style.getPropertyValue("--grid");
    changes[`${axis}.zerolinecolor`] = style.getPropertyValue("--line");
  }
  return changes;
}

function themed(layout) {
  for (const [path, value] of Object.entries(theme())) {
    const [object, key] = path.split(".");
    layout[object] = { ...layout[object], [key]: value };
  }
  return layout;
}

async function draw(section) {
  const { data: traces, layout } = data(section, "figure-data");
  // An array from the start: another array is only a change of style then.
  for (const trace of traces.filter((t) => t.type === "bar")) {
    trace.marker.opacity = trace.customdata.map(() => 1);
  }
  const config = {
    responsive: true,
    displaylogo: false,
    modeBarButtonsToRemove: ["select2d", "lasso2d"],
  };
  await Plotly.newPlot(section.querySelector(".figure"), traces, themed(layout), config);
}

// The names in a figure are escaped as html.escape of Python does it.
function escaped(text) {
  const entities = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;" };
  return text.replace(/[&<>"']/g, (character) => entities[character]);
}

// Dims the buffers that do not match; returns [number, bytes] of those that do.
async function highlight(figure, query) {
  const wanted = escaped(query);
  let count = 0, bytes = 0;
  const opacities = figure.data.map((trace) => trace.type !== "bar" ? undefined :
    trace.customdata.map(([label, place, size]) => {
      const matches = `${label} ${place}`.toLowerCase().includes(wanted);
      if (matches) { count += 1; bytes += size; }
      return matches ? 1 : 0.1;
    }));
  figure.classList.toggle("dimmed", query !== "");
  await Plotly.restyle(figure, { "marker.opacity": opacities });
  return [count, bytes];
}

// --- entry points and search

class Entry {
  constructor(section) {
    this.section = section;
    this.figure = section.querySelector(".figure");
    this.query = "";
    this.found = "";
  }

  // The first look at an entry point draws it.
  async show() {
    if (!this.drawn) {
      this.calls = new Calls(this.section);
      this.drawn = draw(this.section);
    }
    await this.find();
  }

  async find() {
    await this.drawn;
    const query = search.value.trim().toLowerCase();
    if (query !== this.query) {
      this.query = query;
      const calls = this.calls.filter(query);
      const [count, bytes] = await highlight(this.figure, query);
      const size = bytes.toLocaleString("en");
      this.found = query && `buffers: ${count} (${size} bytes), calls: ${calls}`;
    }
    found.textContent = this.found;
  }
}

const entries = [...document.querySelectorAll("section")].map((section) => new Entry(section));
let current = entries[0];

function choose(entry) {
  current = entry;
  for (const other of entries) other.section.hidden = other !== entry;
  buttons.forEach((button, i) => button.classList.toggle("current", entries[i] === entry));
  return entry.show();
}

buttons.forEach((button, i) => button.addEventListener("click", () => choose(entries[i])));
let waiting;
search.addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(() => current.find(), 150);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const entry of entries.filter((e) => e.drawn)) Plotly.relayout(entry.figure, theme());
});
choose(current);
