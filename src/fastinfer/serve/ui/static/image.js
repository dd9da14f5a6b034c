// SPDX-License-Identifier: Apache-2.0
// Pictures as tensors, and tensors as pictures.

import { element } from "./dom.js";
import { TYPES, isFloat } from "./tensors.js";

const CHANNELS = [1, 3, 4];
const FREE = 224; // pixels, where the model leaves width and height open
const NORMS = {
  unit: ["0 … 1", (v) => v / 255],
  signed: ["−1 … 1", (v) => v / 127.5 - 1],
  byte: ["0 … 255", (v) => v],
  imagenet: ["ImageNet mean and deviation", (v, c) => (v / 255 - [0.485, 0.456, 0.406][c % 3]) / [0.229, 0.224, 0.225][c % 3]],
};
const FITS = { stretch: "stretch", crop: "crop to fill", fit: "fit, black bars" };

// {last, channels, height, width, batch} (-1 where free) if the shape can be that of a picture; else null.
export function frame({ datatype, shape: dims }) {
  if (!TYPES[datatype] || datatype === "BOOL" || (dims.length !== 4 && dims.length !== 3)) return null;
  const batch = dims.length === 4;
  if (batch && dims[0] > 1) return null;
  const [a, b, c] = dims.slice(-3);
  const first = CHANNELS.includes(a) || (a < 0 && !CHANNELS.includes(c));
  const last = !first && CHANNELS.includes(c);
  if (!first && !last) return null;
  const [channels, height, width] = last ? [c, a, b] : [a, b, c];
  if ((height >= 0 && height < 2) || (width >= 0 && width < 2)) return null;
  return { batch, last, channels: channels < 0 ? 3 : channels, height, width, open: a < 0 && c < 0 };
}

const select = (label, options, change) => {
  const made = element("select", { onchange: change }, Object.entries(options).map(([value, text]) => element("option", { value }, text)));
  return [element("label", {}, `${label} `, made), made];
};

// Draws a file at the model's size and turns it into values.
export class Picture {
  constructor(input) {
    this.input = input;
    this.frame = frame(input);
    this.canvas = element("canvas", { role: "img", "aria-label": `the picture as ${input.name} gets it` });
    const again = () => this.draw();
    const [fitLabel, fit] = select("Resize", FITS, again);
    const [normLabel, norm] = select("Values", isFloat(input.datatype) ? Object.fromEntries(Object.entries(NORMS).map(([k, [text]]) => [k, text])) : { byte: "0 … 255" }, again);
    const [orderLabel, order] = select("Channels", { rgb: "RGB", bgr: "BGR" }, again);
    const [layoutLabel, layout] = select("Layout", { first: "NCHW", last: "NHWC" }, again);
    layout.value = this.frame.last ? "last" : "first";
    layout.disabled = !this.frame.open;
    const side = (name, fixed) => element("input", { type: "number", min: 1, max: 4096, value: fixed < 0 ? FREE : fixed, disabled: fixed >= 0, "aria-label": name, onchange: again });
    [this.width, this.height] = [side("width", this.frame.width), side("height", this.frame.height)];
    this.options = { fit, norm, order, layout };
    const sizes = element("span", { class: "sizes" }, "Size ", this.width, " × ", this.height);
    this.node = element("div", { class: "picture" }, this.canvas, element("div", { class: "options" }, sizes, fitLabel, normLabel, this.frame.channels === 1 ? null : orderLabel, layoutLabel));
  }

  async load(file) {
    try {
      this.bitmap = await createImageBitmap(file);
    } catch {
      throw new Error(`${file.name} is no picture that this browser can read`);
    }
    this.draw();
  }

  draw() {
    const clamp = (field) => (field.value = Math.min(4096, Math.max(1, Math.round(Number(field.value)) || 1)));
    const [width, height] = [clamp(this.width), clamp(this.height)];
    Object.assign(this.canvas, { width, height });
    const { width: w, height: h } = this.bitmap;
    const [sx, sy] = [width / w, height / h];
    const { fit } = this.options;
    const [x, y] = fit.value === "stretch" ? [sx, sy] : Array(2).fill(fit.value === "crop" ? Math.max(sx, sy) : Math.min(sx, sy));
    const context = this.canvas.getContext("2d", { willReadFrequently: true });
    context.imageSmoothingQuality = "high";
    context.fillRect(0, 0, width, height);
    context.drawImage(this.bitmap, (width - w * x) / 2, (height - h * y) / 2, w * x, h * y);
  }

  // {values, shape}
  tensor() {
    const { width, height } = this.canvas;
    const { channels } = this.frame;
    const last = this.options.layout.value === "last";
    const { data } = this.canvas.getContext("2d").getImageData(0, 0, width, height);
    const area = width * height;
    const values = new TYPES[this.input.datatype].make(area * channels);
    const of = NORMS[this.options.norm.value][1];
    const low = this.input.datatype === "INT8" ? 128 : 0;
    const wide = typeof values[0] === "bigint";
    for (let c = 0; c < channels; c++) {
      const from = this.options.order.value === "bgr" && c < 3 ? 2 - c : c;
      for (let i = 0; i < area; i++) {
        const raw = channels === 1 ? (data[4 * i] * 299 + data[4 * i + 1] * 587 + data[4 * i + 2] * 114) / 1000 : data[4 * i + from];
        const value = isFloat(this.input.datatype) ? of(raw, from) : Math.round(raw) - low;
        values[last ? i * channels + c : c * area + i] = wide ? BigInt(value) : value;
      }
    }
    const dims = last ? [height, width, channels] : [channels, height, width];
    return { values, shape: this.frame.batch ? [1, ...dims] : dims };
  }
}

// A tensor as a canvas; null if it cannot be a picture. Values are spread over black to white where they are not bytes.
export function drawn({ datatype, shape: dims, values }, label) {
  const f = frame({ datatype, shape: dims.length === 4 ? [1, ...dims.slice(1)] : dims });
  if (!f || f.width < 4 || f.height < 4 || f.width * f.height > 1 << 24 || (dims.length === 4 && dims[0] < 1)) return null;
  const area = f.width * f.height;
  const plain = Array.from(values.slice(0, area * f.channels), Number);
  const finite = plain.filter(Number.isFinite);
  const [low, high] = finite.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);
  const [from, to] = datatype === "UINT8" || (low >= 0 && high > 1 && high <= 255) ? [0, 255] : low >= 0 && high <= 1 ? [0, 1] : [low, high];
  const image = new ImageData(f.width, f.height);
  const at = (i, c) => plain[f.last ? i * f.channels + c : c * area + i];
  for (let i = 0; i < area; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = (255 * (at(i, f.channels === 1 ? 0 : c) - from)) / (to - from || 1);
    image.data[4 * i + 3] = f.channels === 4 ? (255 * (at(i, 3) - from)) / (to - from || 1) : 255;
  }
  const canvas = element("canvas", { width: f.width, height: f.height, role: "img", "aria-label": label });
  canvas.getContext("2d").putImageData(image, 0, 0);
  const short = (v) => Number(v.toPrecision(4));
  return element("figure", {}, canvas, element("figcaption", { class: "quiet" }, `black is ${short(from)}, white is ${short(to)}${dims[0] > 1 && dims.length === 4 ? `; the first of ${dims[0]}` : ""}`));
}
