// SPDX-License-Identifier: Apache-2.0
// A form that runs a model once, and what it answered.

import { infer, inferPath, key } from "./api.js";
import { element, seconds, write } from "./dom.js";
import { Field } from "./input.js";
import { output } from "./output.js";
import { nest } from "./text.js";

const SHORT = 512; // values of a request that is shown as a command

// As the protocol's JSON has it: what is not finite is text.
const plain = ({ datatype, values }) => Array.from(values, (v) => (typeof v === "bigint" ? Number(v) : datatype === "BOOL" ? Boolean(v) : Number.isNaN(v) || Math.abs(v) === Infinity ? String(v) : v));

function command(model, version, inputs, parameters) {
  const rows = inputs.map((t) => ({ name: t.name, datatype: t.datatype, shape: t.shape, data: nest(plain(t), t.shape) }));
  const body = JSON.stringify({ ...(Object.keys(parameters).length ? { parameters } : {}), inputs: rows });
  const access = key.get() ? ' -H "Authorization: Bearer $KEY"' : "";
  return `curl ${new URL(inferPath(model, version), location.origin)}${access} \\\n  -d '${body.replaceAll("'", "'\\''")}'`;
}

export class TryPanel {
  constructor(model) {
    this.model = model;
    this.version = element("select", { onchange: () => this.pick() });
    this.label = element("label", {}, "Version ", this.version);
    this.fields = [];
    this.place = element("div", { class: "fields" });
    this.sequence = this.sequenceFields();
    this.button = element("button", { class: "main" }, "Run");
    this.took = element("span", { class: "quiet", role: "status" });
    this.result = element("div", { class: "result" });
    const form = element("form", { onsubmit: (event) => this.run(event), autocomplete: "off" }, this.place, this.sequence.node, element("div", { class: "row" }, this.button, this.took));
    this.node = element("section", { hidden: true, class: "try" }, element("div", { class: "row between" }, element("h3", {}, "Try it"), this.label), form, this.result);
  }

  sequenceFields() {
    const id = element("input", { type: "number", min: 1, value: 1, id: "sequence" });
    const [start, end] = [element("input", { type: "checkbox", checked: true }), element("input", { type: "checkbox" })];
    const node = element("fieldset", { hidden: true }, element("legend", {}, "Sequence"), element("div", { class: "row" },
      element("label", { for: "sequence" }, "Id ", id), element("label", {}, start, " start"), element("label", {}, end, " end")));
    return { node, id, start, end };
  }

  // loaded: the versions that can be run; live: the one that others get.
  update(loaded, live, allowed) {
    const text = JSON.stringify(loaded.map((v) => [v.version, v.inputs, v.stateful]).concat([live, allowed]));
    if (text === this.drawn) return;
    this.drawn = text;
    this.node.hidden = !loaded.length || !allowed;
    const before = this.version.value;
    this.loaded = new Map(loaded.map((v) => [v.version, v]));
    this.version.replaceChildren(...loaded.map((v) => element("option", { value: v.version }, v.version === live ? `${v.version} (live)` : v.version)));
    this.version.value = this.loaded.has(before) ? before : this.loaded.has(live) ? live : loaded.at(-1)?.version ?? "";
    this.label.hidden = loaded.length < 2;
    this.pick();
  }

  // What was typed stays while the inputs are the same.
  pick() {
    const version = this.loaded.get(this.version.value);
    if (!version) return;
    const text = JSON.stringify(version.inputs);
    if (text === this.inputs) return;
    this.inputs = text;
    this.fields = version.inputs.map((i) => new Field(i));
    this.place.replaceChildren(...this.fields.map((f) => f.node));
    this.sequence.node.hidden = !version.stateful;
    this.result.replaceChildren();
    write(this.took, "");
  }

  parameters() {
    const { node, id, start, end } = this.sequence;
    if (node.hidden) return {};
    return { sequence_id: Number(id.value), sequence_start: start.checked, sequence_end: end.checked };
  }

  async run(event) {
    event.preventDefault();
    this.button.disabled = true;
    write(this.took, "running …");
    try {
      const inputs = this.fields.map((f) => f.tensor());
      const parameters = this.parameters();
      const start = performance.now();
      const response = await infer(this.model, this.version.value, inputs, parameters);
      write(this.took, `Version ${response.version} answered in ${seconds((performance.now() - start) / 1000)}.`);
      this.sequence.start.checked = this.sequence.end.checked;
      this.result.replaceChildren(...response.outputs.map(output), ...this.example(inputs, parameters));
    } catch (error) {
      write(this.took, "");
      this.result.replaceChildren(element("p", { class: "failure", role: "alert" }, error.message));
    } finally {
      this.button.disabled = false;
    }
  }

  example(inputs, parameters) {
    const json = inputs.every((t) => t.datatype !== "FP16" && t.datatype !== "BF16") && inputs.reduce((n, t) => n + t.values.length, 0) <= SHORT;
    if (!json) return [];
    return [element("details", {}, element("summary", {}, "The same with curl"), element("pre", { tabindex: 0 }, command(this.model, this.version.value, inputs, parameters)))];
  }
}
