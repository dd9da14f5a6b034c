// SPDX-License-Identifier: Apache-2.0
// Elements from data, and figures as text. Text goes in as text nodes only: a model may be called <script>.

// attributes: onclick and so on are listeners; css sets properties (the page's policy forbids style attributes).
export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "css") for (const [property, v] of Object.entries(value)) node.style.setProperty(property, v);
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((c) => c != null && c !== false));
  return node;
}

// heads that begin with ">" are of numbers, and their columns stand to the right.
export function table(heads, rows, caption) {
  const cell = (tag, value, numeric) => element(tag, { class: numeric && "num", scope: tag === "th" && "col" }, value instanceof Node ? value : String(value));
  const body = rows.map((row) => element("tr", {}, row.map((v, i) => cell("td", v, heads[i].startsWith(">")))));
  const head = element("tr", {}, heads.map((h) => cell("th", h.replace(/^>/, ""), h.startsWith(">"))));
  return element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
    element("table", {}, element("thead", {}, head), element("tbody", {}, body)));
}

// Sets a text without touching the node where nothing has changed: screen readers and selections stay where they are.
export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function seconds(value) {
  if (!value) return "–";
  if (value < 1e-3) return `${(value * 1e6).toFixed(0)} µs`;
  return value < 1 ? `${Number((value * 1e3).toPrecision(3))} ms` : `${Number(value.toPrecision(3))} s`;
}

export function duration(value) {
  const parts = [[86400, "d"], [3600, "h"], [60, "min"]].find(([size]) => value >= size);
  if (!parts) return `${Math.floor(value)} s`;
  const [size, unit] = parts;
  const rest = { d: [3600, "h"], h: [60, "min"], min: [1, "s"] }[unit];
  return `${Math.floor(value / size)} ${unit} ${Math.floor((value % size) / rest[0])} ${rest[1]}`;
}

// Thousands are set apart by a narrow space.
export function count(value) {
  if (value >= 1e7) return `${(value / 1e6).toFixed(1)} M`;
  return Math.round(value).toString().replace(/\B(?=(\d{3})+$)/g, "\u202f");
}

export function rate(value) {
  return value >= 100 || Number.isInteger(value) ? count(value) : value.toFixed(1);
}

export function bytes(value) {
  const [size, unit] = [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]].find(([s]) => value >= s) ?? [1, "B"];
  return `${size === 1 ? value : (value / size).toFixed(1)} ${unit}`;
}

export function shape(dims) {
  return dims.length ? dims.map((d) => (d < 0 ? "?" : d)).join(" × ") : "scalar";
}
