// SPDX-License-Identifier: Apache-2.0
// Elements from data. Text goes in as text nodes only: a model may be called <script>.

export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((c) => c != null));
  return node;
}

export function table(heads, rows) {
  const cell = (tag, value, numeric) => element(tag, { class: numeric && "num" }, value instanceof Node ? value : String(value));
  const body = rows.map((row) => element("tr", {}, row.map((v, i) => cell("td", v, heads[i].startsWith(">")))));
  const head = element("tr", {}, heads.map((h) => cell("th", h.replace(/^>/, ""), h.startsWith(">"))));
  return element("div", { class: "scroll" }, element("table", {}, element("thead", {}, head), element("tbody", {}, body)));
}

export function seconds(value) {
  if (!value) return "–";
  if (value < 1e-3) return `${(value * 1e6).toFixed(0)} µs`;
  return value < 1 ? `${(value * 1e3).toPrecision(3)} ms` : `${value.toPrecision(3)} s`;
}

export function count(value) {
  return value >= 1e6 ? `${(value / 1e6).toFixed(1)} M` : value >= 1e4 ? `${(value / 1e3).toFixed(1)} k` : String(Math.round(value * 10) / 10);
}

export function bytes(value) {
  const step = value >= 1 << 30 ? [1 << 30, "GiB"] : value >= 1 << 20 ? [1 << 20, "MiB"] : [1 << 10, "KiB"];
  return `${(value / step[0]).toFixed(1)} ${step[1]}`;
}

export function shape(dims) {
  return dims.length ? dims.map((d) => (d < 0 ? "?" : d)).join(" × ") : "scalar";
}

// The last two minutes of one figure.
export class Chart {
  constructor(title, show) {
    this.values = [];
    this.show = show;
    this.figure = element("b", {}, "–");
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", "0 0 120 40");
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("aria-hidden", "true");
    this.path = svg.appendChild(document.createElementNS(svg.namespaceURI, "path"));
    this.node = element("div", { class: "chart" }, element("div", { class: "quiet" }, title), this.figure, svg);
  }

  add(value) {
    this.values = [...this.values, value].slice(-120);
    const top = Math.max(...this.values, 1e-12);
    const points = this.values.map((v, i) => `${120 - this.values.length + i},${(39 - (v / top) * 37).toFixed(1)}`);
    this.path.setAttribute("d", points.length > 1 ? `M${points.join("L")}` : "");
    this.figure.textContent = this.show(value);
  }
}
