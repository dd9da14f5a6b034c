// SPDX-License-Identifier: Apache-2.0
// Typed values and JSON → {values, shape}. Numbers stay text until they are held, so 64-bit ones lose nothing.

import { hold, size } from "./tensors.js";
import { shape } from "./dom.js";

// Nested lists of numbers, or numbers set apart by commas and white space. dims: null for a flat row of them.
function tokens(text) {
  const flat = [];
  const dims = [];
  const counts = [];
  let depth = 0;
  let leaves; // the depth of values
  for (const [token] of text.matchAll(/[[\]]|[^\s,[\]]+/g)) {
    if (token === "[") {
      if (depth) counts[depth - 1]++;
      counts[depth++] = 0;
    } else if (token === "]") {
      if (!depth) throw new Error("a ] closes nothing");
      depth--;
      if (dims[depth] !== undefined && dims[depth] !== counts[depth]) throw new Error(`lists of ${dims[depth]} and of ${counts[depth]} stand side by side`);
      dims[depth] = counts[depth];
    } else {
      if (depth) counts[depth - 1]++;
      if ((leaves ??= depth) !== depth) throw new Error("values and lists stand side by side");
      flat.push(token.replace(/^"(.*)"$/, "$1"));
    }
  }
  if (depth) throw new Error(`${depth} [ are not closed`);
  if (dims.length && size(dims) !== flat.length) throw new Error("values and lists stand side by side");
  return { flat, dims: dims.length ? dims : null };
}

// The shape of so many values: as they are nested, or what is declared, where that leaves no choice.
export function fitted(total, dims, declared) {
  if (dims?.length === declared.length && declared.every((d, i) => d < 0 || d === dims[i])) return dims;
  const known = size(declared.filter((d) => d >= 0));
  const free = declared.filter((d) => d < 0).length;
  const one = free === 1 ? total / known : 1; // more free extents than one: all but the first are 1 at most
  if (free > 1 || !Number.isInteger(one) || one * known !== total) {
    throw new Error(`${dims ? `values of shape ${shape(dims)}` : `${total} value${total === 1 ? "" : "s"}`} do not fit ${shape(declared)}${free > 1 ? ": nest them in brackets" : ""}`);
  }
  return declared.map((d) => (d < 0 ? one : d));
}

function texts(text) {
  if (!text.trim().startsWith("[")) return { flat: text.replace(/\n$/, "").split("\n"), dims: null };
  const value = JSON.parse(text);
  const dims = [];
  for (let v = value; Array.isArray(v); v = v[0]) dims.push(v.length);
  const flat = value.flat(Infinity);
  if (size(dims) !== flat.length) throw new Error("lists of unequal lengths stand side by side");
  return { flat, dims };
}

export function parse(text, input) {
  const { flat, dims } = input.datatype === "BYTES" ? texts(text) : tokens(text);
  return { values: hold(input.datatype, flat), shape: fitted(flat.length, dims, input.shape) };
}

// What of a JSON file is meant for this input: a request's tensor, a field of its name, or all of it.
export function fromFile(text, input) {
  if (!text.trim().startsWith("{")) return text;
  const given = JSON.parse(text);
  const rows = Array.isArray(given.inputs) ? given.inputs : [given];
  const row = rows.find((r) => r.name === input.name) ?? (rows.length === 1 && rows[0].data ? rows[0] : given);
  const values = row.data ?? given[input.name] ?? given.inputs?.[input.name];
  if (values === undefined) throw new Error(`the file has no values for ${input.name}`);
  const nested = row.data && row.shape?.length > 1 && !Array.isArray(row.data[0]) ? nest(row.data, row.shape) : values;
  return JSON.stringify(nested);
}

export function nest(flat, dims) {
  if (dims.length < 2) return [...flat];
  const step = size(dims.slice(1));
  return Array.from({ length: dims[0] }, (_, i) => nest(flat.slice(i * step, (i + 1) * step), dims.slice(1)));
}
