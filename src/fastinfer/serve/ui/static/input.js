// SPDX-License-Identifier: Apache-2.0
// One input of a model: typed values, a file (.npy, JSON, text) or a picture.

import { element, shape } from "./dom.js";
import { Picture, frame } from "./image.js";
import { converted, isNpy, read } from "./npy.js";
import { hold, isFloat, size } from "./tensors.js";
import { fitted, fromFile, nest, parse } from "./text.js";

const TYPED = 256; // values that are shown as text; more are held beside it

function hint({ datatype, shape: dims }) {
  if (datatype === "BYTES") return "One text a line, or a JSON list of texts";
  const width = dims.length > 1 && dims.at(-1) > 0 ? `, ${dims.at(-1)} a row` : "";
  return `${datatype === "BOOL" ? "true or false" : "Numbers"}, set apart by spaces or commas${width}; or nested JSON lists`;
}

function sample(datatype, random) {
  if (datatype === "BYTES") return "text";
  if (datatype === "BOOL") return random && Math.random() < 0.5;
  if (!isFloat(datatype)) return random ? Math.floor(Math.random() * 100) : 0;
  return random ? Number((Math.random() * 2 - 1).toFixed(3)) : 0;
}

export class Field {
  constructor(input) {
    this.input = input;
    this.held = null; // () → {values, shape}, instead of the text
    this.text = element("textarea", { "aria-label": `Values of ${input.name}`, spellcheck: "false", rows: 3, placeholder: hint(input), oninput: () => this.release() });
    const kinds = frame(input) ? ".npy,.json,.txt,image/*" : ".npy,.json,.txt";
    this.file = element("input", { type: "file", accept: kinds, class: "unseen", tabindex: -1, "aria-label": `File for ${input.name}`, onchange: () => this.chosen() });
    this.note = element("div", { class: "held", hidden: true });
    this.error = element("p", { class: "bad", role: "alert" });
    const button = (text, act) => element("button", { type: "button", onclick: act, "aria-label": `${text.replace("…", "")}: ${input.name}` }, text);
    this.node = element("fieldset", {}, element("legend", {}, element("b", {}, input.name), " ", element("code", { class: "quiet" }, `${input.datatype}  ${shape(input.shape)}`)),
      element("div", { class: "row tools" }, button(frame(input) ? "Image or file…" : "File…", () => this.file.click()), button("Zeros", () => this.fill(false)), button("Random", () => this.fill(true)), this.file),
      this.text, this.note, this.error);
    this.drops();
  }

  drops() {
    this.node.addEventListener("dragover", (event) => event.preventDefault());
    this.node.addEventListener("drop", (event) => {
      event.preventDefault();
      if (event.dataTransfer.files[0]) this.load(event.dataTransfer.files[0]);
    });
  }

  release() {
    this.held = null;
    this.note.hidden = true;
    this.text.hidden = false;
    this.error.textContent = "";
  }

  // said: what stands in place of the text.
  hold(tensor, ...said) {
    this.held = tensor;
    this.text.value = "";
    this.text.hidden = true;
    const clear = element("button", { type: "button", onclick: () => { this.release(); this.text.focus(); }, "aria-label": `Clear ${this.input.name}` }, "Clear");
    this.note.replaceChildren(...said, clear);
    this.note.hidden = false;
    this.error.textContent = "";
  }

  // A free first extent is 1, others too: only the model knows better.
  fill(random) {
    const dims = this.input.shape.map((d) => (d < 0 ? 1 : d));
    const given = Array.from({ length: size(dims) }, () => sample(this.input.datatype, random));
    if (given.length > TYPED) {
      const values = hold(this.input.datatype, given);
      this.hold(() => ({ values, shape: dims }), element("span", {}, `${shape(dims)} ${random ? "random values" : "zeros"}`));
      return;
    }
    this.release();
    this.text.value = JSON.stringify(nest(given, dims));
  }

  async chosen() {
    const [file] = this.file.files;
    this.file.value = ""; // the same one can be chosen again
    if (file) await this.load(file);
  }

  async load(file) {
    try {
      if (file.type.startsWith("image/")) await this.picture(file);
      else await this.values(file);
    } catch (problem) {
      this.release();
      this.error.textContent = problem.message;
    }
  }

  async picture(file) {
    if (!frame(this.input)) throw new Error(`${this.input.name} has no shape of a picture`);
    const picture = new Picture(this.input);
    await picture.load(file);
    this.hold(() => picture.tensor(), picture.node);
  }

  async values(file) {
    const bytes = new Uint8Array(await file.arrayBuffer());
    if (isNpy(bytes)) {
      const array = read(bytes);
      const values = hold(this.input.datatype, converted(array, this.input.datatype));
      const dims = fitted(values.length, array.shape, this.input.shape);
      const from = array.datatype === this.input.datatype ? "" : ` from ${array.datatype}`;
      this.hold(() => ({ values, shape: dims }), element("span", {}, `${file.name}: ${shape(dims)} values${from}`));
      return;
    }
    const text = fromFile(new TextDecoder("utf-8", { fatal: true }).decode(bytes), this.input);
    const parsed = parse(text, this.input);
    if (parsed.values.length > TYPED) this.hold(() => parsed, element("span", {}, `${file.name}: ${shape(parsed.shape)} values`));
    else {
      this.release();
      this.text.value = text.trim();
    }
  }

  // Throws with the input's name.
  tensor() {
    try {
      if (!this.held && !this.text.value.trim()) throw new Error("no values are given");
      const { values, shape: dims } = this.held ? this.held() : parse(this.text.value, this.input);
      return { name: this.input.name, datatype: this.input.datatype, shape: dims, values };
    } catch (problem) {
      this.text.focus();
      throw new Error(`${this.input.name}: ${problem.message}`);
    }
  }
}
