// SPDX-License-Identifier: Apache-2.0
// One output of a model: the largest elements, a table, or a picture.

import { element, shape, table } from "./dom.js";
import { drawn } from "./image.js";
import { write } from "./npy.js";
import { isFloat, size } from "./tensors.js";

const TOP = 10;
const ROWS = 50;
const COLUMNS = 16;
const LISTED = 100_000; // elements of a row that are ranked

const shown = (tensor, value) => {
  if (tensor.datatype === "BYTES") return value;
  if (tensor.datatype === "BOOL") return value ? "true" : "false";
  return isFloat(tensor.datatype) ? String(Number(value.toPrecision(6))) : String(value);
};

const width = (tensor) => (tensor.shape.length ? tensor.shape.at(-1) : 1);

// Of the first row.
function top(tensor) {
  const row = Array.from(tensor.values.slice(0, width(tensor)));
  const best = row.map((v, i) => [v, i]).filter(([v]) => !Number.isNaN(v)).sort((a, b) => b[0] - a[0]).slice(0, TOP);
  const most = Math.max(...best.map(([v]) => Math.abs(v)).filter(Number.isFinite), 1e-30);
  return element("ol", { class: "top" }, best.map(([v, i]) => element("li", {}, element("span", { class: "num quiet" }, String(i)),
    element("span", { class: "track", "aria-hidden": "true" }, element("i", { class: v < 0 && "minus", css: { width: `${(100 * Math.min(Math.abs(v), most)) / most}%` } })),
    element("span", { class: "num" }, shown(tensor, v)))));
}

function grid(tensor) {
  const columns = width(tensor);
  const rows = columns ? tensor.values.length / columns : 0;
  const indexed = (i) => {
    const at = [];
    for (const d of tensor.shape.slice(0, -1).reverse()) {
      at.unshift(i % d);
      i = Math.floor(i / d);
    }
    return at.join(", ");
  };
  const wide = Math.min(columns, COLUMNS);
  const sign = tensor.datatype === "BYTES" ? "" : ">";
  const named = tensor.shape.length > 1;
  const heads = [...(named ? [">"] : []), ...Array.from({ length: wide }, (_, c) => `${sign}${c}`)];
  const body = Array.from({ length: Math.min(rows, ROWS) }, (_, r) => [...(named ? [element("span", { class: "quiet" }, indexed(r))] : []),
    ...Array.from({ length: wide }, (_, c) => shown(tensor, tensor.values[r * columns + c]))]);
  const left = [rows > ROWS && `${rows - ROWS} more rows`, columns > COLUMNS && `${columns - COLUMNS} more columns`].filter(Boolean);
  return element("div", {}, table(heads, body, `Values of ${tensor.name}`), left.length ? element("p", { class: "quiet" }, `${left.join(", ")} are not shown.`) : null);
}

function summary(tensor) {
  if (!isFloat(tensor.datatype) || tensor.values.length < 2) return "";
  let [low, high, sum, odd] = [Infinity, -Infinity, 0, 0];
  for (const v of tensor.values) {
    if (!Number.isFinite(v)) odd++;
    else [low, high, sum] = [Math.min(low, v), Math.max(high, v), sum + v];
  }
  const short = (v) => Number(v.toPrecision(4));
  const finite = tensor.values.length - odd;
  return [finite && `min ${short(low)} · mean ${short(sum / finite)} · max ${short(high)}`, odd && `${odd} not finite`].filter(Boolean).join(" · ");
}

// The ways to look at it, the most fitting first.
function views(tensor) {
  const ranked = isFloat(tensor.datatype) && width(tensor) > 2 && width(tensor) <= LISTED && size(tensor.shape) > 0;
  const vector = size(tensor.shape.slice(0, -1)) === 1;
  const image = drawn(tensor, `${tensor.name} as a picture`);
  const rank = ranked && [`Top ${Math.min(TOP, width(tensor))}`, () => top(tensor)];
  const plain = ["Table", () => grid(tensor)];
  return [image && ["Image", () => image], vector && rank, plain, !vector && !image && rank].filter(Boolean);
}

export function output(tensor) {
  const all = views(tensor);
  const place = element("div");
  const buttons = all.map(([name, make]) => element("button", { type: "button", onclick: () => choose(name, make) }, name));
  const choose = (name, make) => {
    place.replaceChildren(make());
    for (const b of buttons) b.setAttribute("aria-pressed", String(b.textContent === name));
  };
  choose(...all[0]);
  const save = element("button", { type: "button", "aria-label": `Save ${tensor.name} as .npy`, onclick: () => download(tensor) }, "Save .npy");
  return element("section", { class: "output", "aria-label": `Output ${tensor.name}` },
    element("div", { class: "row" }, element("h4", {}, tensor.name), element("code", { class: "quiet" }, `${tensor.datatype}  ${shape(tensor.shape)}`),
      element("span", { class: "row end" }, buttons.length > 1 ? element("span", { class: "choice", role: "group", "aria-label": `View of ${tensor.name}` }, buttons) : null, write(tensor) && save)),
    place, element("p", { class: "quiet" }, summary(tensor)));
}

function download(tensor) {
  const url = URL.createObjectURL(write(tensor));
  element("a", { href: url, download: `${tensor.name.replace(/[^\w.-]+/g, "_")}.npy` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
