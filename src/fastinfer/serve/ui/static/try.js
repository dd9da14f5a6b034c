// SPDX-License-Identifier: Apache-2.0
// A form to run a model once: typed values, a file of JSON, or a picture that is scaled to what the input takes.

import { infer } from "./api.js";
import { element, seconds, shape, table } from "./dom.js";

const WHOLE = /^U?INT/;

// Nested or flat JSON → the shape it has; a declared shape with one free extent takes flat data too.
function sized(value, declared) {
  const dims = [];
  for (let v = value; Array.isArray(v); v = v[0]) dims.push(v.length);
  const flat = dims.length > 1 || Array.isArray(value) ? value.flat(Infinity) : [value];
  if (dims.length === declared.length) return [flat, dims];
  const known = declared.filter((d) => d >= 0).reduce((a, b) => a * b, 1);
  const free = declared.filter((d) => d < 0).length;
  if (free > 1 || (free === 0 && known !== flat.length) || (free === 1 && flat.length % known)) {
    throw new Error(`${flat.length} values do not fill ${shape(declared)}: nest them in brackets`);
  }
  return [flat, declared.map((d) => (d < 0 ? flat.length / known : d))];
}

function parse(text, input) {
  if (input.datatype === "BYTES") {
    const given = text.trim().startsWith("[") ? JSON.parse(text) : [text];
    return sized(given, input.shape);
  }
  const given = text.trim();
  const value = JSON.parse(/^[[{]/.test(given) || given === "true" || given === "false" ? given : `[${given.replace(/[\s,]+/g, ",")}]`);
  return sized(value, input.shape);
}

// [N, C, H, W] or [N, H, W, C] with 1, 3 or 4 channels → where height, width and channels are.
function picture(input) {
  const [n, a, b, c] = input.shape;
  if (input.shape.length !== 4 || n > 1 || input.datatype === "BYTES" || input.datatype === "BOOL") return null;
  if ([1, 3, 4].includes(a)) return { channels: a, height: b < 0 ? 224 : b, width: c < 0 ? 224 : c, last: false };
  if ([1, 3, 4].includes(c)) return { channels: c, height: a < 0 ? 224 : a, width: b < 0 ? 224 : b, last: true };
  return null;
}

function pixels(canvas, p, whole, scale) {
  const { data } = canvas.getContext("2d").getImageData(0, 0, p.width, p.height);
  const out = [];
  const value = (i, c) => {
    const raw = p.channels === 1 ? (data[i] * 299 + data[i + 1] * 587 + data[i + 2] * 114) / 1000 : data[i + c];
    return whole ? Math.round(raw) : raw / scale;
  };
  const area = p.width * p.height;
  if (p.last) for (let i = 0; i < area; i++) for (let c = 0; c < p.channels; c++) out.push(value(4 * i, c));
  else for (let c = 0; c < p.channels; c++) for (let i = 0; i < area; i++) out.push(value(4 * i, c));
  return [out, p.last ? [1, p.height, p.width, p.channels] : [1, p.channels, p.height, p.width]];
}

class Field {
  constructor(input) {
    this.input = input;
    this.image = null;
    this.text = element("textarea", { "aria-label": `values of ${input.name}`, spellcheck: "false",
      placeholder: input.datatype === "BYTES" ? "a text, or a JSON list of texts" : "numbers, or nested JSON lists" });
    const file = element("input", { type: "file", "aria-label": `file for ${input.name}`, onchange: () => this.load(file.files[0]) });
    this.preview = element("div", { class: "row" });
    this.node = element("div", { class: "field" },
      element("div", { class: "row" }, element("b", {}, input.name), element("code", {}, `${input.datatype} ${shape(input.shape)}`), file,
        element("button", { type: "button", onclick: () => this.fill() }, "Zeros")),
      this.text, this.preview);
  }

  fill() {
    const total = this.input.shape.map((d) => (d < 0 ? 1 : d)).reduce((a, b) => a * b, 1);
    if (total > 4096) {
      this.text.value = "";
      this.image = [new Array(total).fill(0), this.input.shape.map((d) => (d < 0 ? 1 : d))];
      this.preview.replaceChildren(`${total} zeros`);
      return;
    }
    const nest = (dims) => (dims.length ? Array.from({ length: dims[0] < 0 ? 1 : dims[0] }, () => nest(dims.slice(1)))
      : this.input.datatype === "BYTES" ? "" : this.input.datatype === "BOOL" ? false : 0);
    this.image = null;
    this.preview.replaceChildren();
    this.text.value = JSON.stringify(nest(this.input.shape));
  }

  async load(file) {
    if (!file) return;
    this.image = null;
    this.preview.replaceChildren();
    const p = picture(this.input);
    if (!file.type.startsWith("image/") || !p) {
      this.text.value = await file.text();
      return;
    }
    const bitmap = await createImageBitmap(file);
    const canvas = element("canvas", { width: p.width, height: p.height });
    canvas.getContext("2d", { willReadFrequently: true }).drawImage(bitmap, 0, 0, p.width, p.height);
    const whole = WHOLE.test(this.input.datatype);
    const scale = element("select", {}, element("option", { value: 255 }, "0 to 1"), element("option", { value: 1 }, "0 to 255"));
    const take = () => (this.image = pixels(canvas, p, whole, Number(scale.value)));
    scale.addEventListener("change", take);
    take();
    this.text.value = "";
    this.preview.replaceChildren(canvas, whole ? "" : element("label", {}, "values ", scale));
  }

  tensor() {
    const [data, dims] = this.text.value.trim() ? parse(this.text.value, this.input) : this.image ?? [];
    if (!data) throw new Error(`${this.input.name} is empty`);
    return { name: this.input.name, datatype: this.input.datatype, shape: dims, data };
  }
}

// The ten largest of a row of scores, or the values.
function output(o) {
  const head = element("h3", {}, `${o.name} `, element("code", {}, `${o.datatype} ${shape(o.shape)}`));
  const last = o.shape.at(-1) ?? 1;
  if (o.data && o.data.length === last && last > 1 && last <= 100000 && o.datatype.startsWith("FP")) {
    const best = [...o.data.entries()].sort((a, b) => b[1] - a[1]).slice(0, 10);
    const top = Math.max(...best.map(([, v]) => Math.abs(v)), 1e-30);
    const bars = best.map(([i, v]) => element("div", { class: "bar" }, element("span", { class: "num" }, String(i)),
      element("i", { style: `width:${(100 * Math.abs(v)) / top}%` }), element("span", { class: "mono" }, v.toPrecision(6))));
    return [head, ...bars];
  }
  const shown = (o.data ?? []).slice(0, 1000);
  return [head, element("pre", {}, JSON.stringify(shown) + (o.data?.length > 1000 ? ` … ${o.data.length} values` : ""))];
}

export function tryPanel(name, version) {
  const fields = version.inputs.map((i) => new Field(i));
  const result = element("div", { id: "result", "aria-live": "polite" });
  const button = element("button", { class: "main" }, "Run");
  const run = async (event) => {
    event.preventDefault();
    button.disabled = true;
    try {
      const inputs = fields.map((f) => f.tensor());
      const start = performance.now();
      const response = await infer(name, version.version, inputs);
      const took = (performance.now() - start) / 1000;
      result.replaceChildren(element("p", { class: "quiet" }, `answered in ${seconds(took)} by version ${response.model_version ?? version.version}`),
        ...response.outputs.flatMap(output));
    } catch (error) {
      result.replaceChildren(element("p", { class: "bad", role: "alert" }, error.message));
    } finally {
      button.disabled = false;
    }
  };
  const outputs = table(["output", "type", "shape"], version.outputs.map((o) => [o.name, o.datatype, shape(o.shape)]));
  return element("form", { onsubmit: run }, element("h3", {}, `Try version ${version.version}`), fields.map((f) => f.node), button, result,
    element("details", {}, element("summary", {}, "Outputs"), outputs));
}
