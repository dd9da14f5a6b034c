// SPDX-License-Identifier: Apache-2.0
// The versions of a model: state, figures, share of the requests, and what an admin may do to it.

import * as api from "./api.js";
import { ask } from "./dialog.js";
import { bytes, count, element, rate, seconds, shape, table, write } from "./dom.js";
import { WINDOW } from "./figures.js";

const COLUMNS = { share: "Traffic", rate: "Req/s", p50: "p50", p99: "p99", requests: "Requests", failures: "Failed", memory: "Memory" };

export const TONES = { READY: "good", LOADING: "warm", UNLOADING: "warm", UNAVAILABLE: "bad" };

// Not loaded is no fault; a version that could not be loaded is one.
export function tone(version) {
  return version.reason === "not loaded" || version.reason === "unloaded" ? "quiet" : TONES[version.state] ?? "quiet";
}

function stateOf(v) {
  if (v.reason === "not loaded") return "not loaded";
  return v.state.toLowerCase();
}

// The share of the requests that name no version.
function share(model, v) {
  if (!model.traffic.some((t) => !t.shadow)) return v.version === model.live ? 100 : 0;
  return model.traffic.find((t) => t.version === v.version && !t.shadow)?.percent ?? 0;
}

const percent = (value) => `${Number(value.toFixed(1))} %`;

class Row {
  constructor(table) {
    this.table = table;
    this.name = element("th", { scope: "row" });
    this.state = element("td");
    this.cells = Object.entries(COLUMNS).map(([c, title]) => [c, element("td", { class: "num", "data-title": title })]);
    this.actions = element("div", { class: "row end" });
    this.node = element("tr", {}, this.name, this.state, this.cells.map(([, c]) => c), element("td", { class: "acts" }, this.actions));
  }

  update(model, v, figures) {
    const aliases = Object.entries(model.aliases).filter(([, version]) => version === v.version).map(([alias]) => alias);
    const shadow = model.traffic.find((t) => t.version === v.version && t.shadow);
    const chips = [...aliases, ...(v.device && v.device !== "cpu" ? [v.device] : []), ...(shadow ? [`shadow ${percent(shadow.percent)}`] : [])];
    this.redraw("name", [v.version, chips], this.name, () => [v.version, ...chips.map((c) => element("span", { class: "chip" }, c))]);
    this.redraw("state", [v.state, v.reason], this.state, () => [
      element("span", { class: `dot ${tone(v)}` }, stateOf(v)), v.reason && v.reason !== "not loaded" ? element("span", { class: "reason" }, v.reason) : null].filter(Boolean));
    const texts = {
      share: v.loaded ? percent(share(model, v)) : "–", rate: v.loaded ? rate(figures.rate) : "–", p50: seconds(figures.p50), p99: seconds(figures.p99),
      requests: count(v.requests + v.failures), failures: count(v.failures), memory: v.loaded ? bytes(v.memory) : "–",
    };
    for (const [name, cell] of this.cells) {
      write(cell, texts[name]);
      if (name === "failures") cell.classList.toggle("bad", v.failures > 0);
    }
    const possible = this.table.possible(model, v);
    this.redraw("actions", possible.map(([label]) => label), this.actions, () => possible.map(([label, act]) => element("button", {
      type: "button", "aria-label": `${label.replace("…", "")} version ${v.version} of ${model.name}`, onclick: act }, label)));
  }

  // Buttons keep their focus while nothing changes.
  redraw(part, data, node, make) {
    const text = JSON.stringify(data);
    if (this[`${part}Drawn`] === text) return;
    this[`${part}Drawn`] = text;
    node.replaceChildren(...make());
  }
}

export class Versions {
  // changed: called after an action.
  constructor(changed) {
    this.changed = changed;
    this.rows = new Map();
    this.body = element("tbody");
    this.split = element("div");
    const groups = element("tr", { class: "groups" }, element("td", { colspan: 3 }), element("th", { colspan: 3, scope: "colgroup" }, element("span", { class: "group" }, `last ${WINDOW} s`)),
      element("th", { colspan: 2, scope: "colgroup" }, element("span", { class: "group" }, "since start")), element("td", { colspan: 2 }));
    const row = element("tr", {}, ["Version", "State"].map((h) => element("th", { scope: "col" }, h)),
      Object.values(COLUMNS).map((h) => element("th", { scope: "col", class: "num" }, h)),
      element("th", { scope: "col" }, element("span", { class: "unseen" }, "Actions")));
    const drawn = element("table", {}, element("thead", {}, groups, row), this.body);
    this.back = element("button", { type: "button" });
    this.corner = element("span");
    this.node = element("section", {}, element("div", { class: "row between" }, element("h3", {}, "Versions"), this.corner), this.split,
      element("div", { class: "scroll versions", tabindex: 0, role: "region", "aria-label": "Versions" }, drawn));
  }

  update(model, figures) {
    const order = model.versions.map((v) => v.version).join();
    if (order !== this.order) {
      this.order = order;
      this.rows = new Map(model.versions.map((v) => [v.version, this.rows.get(v.version) ?? new Row(this)]));
      this.body.replaceChildren(...[...this.rows.values()].map((r) => r.node));
    }
    for (const v of model.versions) this.rows.get(v.version).update(model, v, figures.get(v.version));
    this.showSplit(model);
    this.showBack(model);
  }

  showSplit(model) {
    const parts = model.traffic.filter((t) => !t.shadow);
    const text = JSON.stringify(parts);
    if (text === this.splitDrawn) return;
    this.splitDrawn = text;
    this.split.replaceChildren();
    if (parts.length < 2) return;
    const said = parts.map((t) => `version ${t.version} ${percent(t.percent)}`).join(", ");
    this.split.append(element("div", { class: "split", role: "img", "aria-label": `Traffic: ${said}` }, parts.map((t, i) =>
      element("span", { class: `part${Math.min(i, 3)}`, css: { "flex-grow": String(Math.max(t.percent, 0.5)) } }, `v${t.version} · ${percent(t.percent)}`))));
  }

  showBack(model) {
    const trial = model.traffic.some((t) => !t.shadow && t.version !== model.live) || model.aliases.canary;
    const shown = model.may.includes("admin") && (trial || model.aliases.stable);
    if (Boolean(shown) !== this.back.isConnected) this.corner.replaceChildren(...(shown ? [this.back] : []));
    write(this.back, trial ? "End canary" : "Roll back");
    this.back.onclick = () => this.rollback(model, trial);
  }

  // [label, action] of what the caller may do to a version.
  possible(model, v) {
    if (!model.may.includes("admin") || !(v.state === "READY" || v.reason === "not loaded")) return [];
    if (v.version === model.live && v.version === model.aliases.stable) return [];
    const promote = ["Promote", () => this.promote(model, v)];
    return v.version === model.live ? [promote] : [["Canary…", () => this.canary(model, v)], promote];
  }

  async act(question) {
    if (await ask(question)) this.changed();
  }

  promote(model, v) {
    const wasLoaded = v.loaded ? "" : " It is loaded first.";
    return this.act({ title: `Promote version ${v.version}`, confirm: "Promote", act: () => api.change(model.name, "promote", { version: v.version }),
      body: element("p", {}, "All requests to ", element("b", {}, model.name), ` that name no version go to version ${v.version}; a canary ends.${wasLoaded}`) });
  }

  canary(model, v) {
    const input = element("input", { type: "number", min: 0.1, max: 99, step: "any", value: 10, required: true, id: "share" });
    return this.act({ title: `Try version ${v.version} as a canary`, confirm: "Start canary",
      act: () => api.change(model.name, "canary", { version: v.version, percent: Number(input.value) }),
      body: element("div", {}, element("p", {}, "It takes a part of the requests to ", element("b", {}, model.name), " and is rolled back by itself if it fails more often or is much slower."),
        element("label", { for: "share" }, "Share of the requests ", input, " %")) });
  }

  rollback(model, trial) {
    const text = trial ? "The canary takes no more requests; the stable version takes all." : "Requests go to the version that was stable before.";
    return this.act({ title: trial ? "End the canary" : "Roll back", confirm: trial ? "End canary" : "Roll back", danger: true,
      act: () => api.change(model.name, "rollback", {}), body: element("p", {}, element("b", {}, model.name), `: ${text}`) });
  }
}

// Inputs and outputs side by side.
export function signature(version) {
  const rows = (ports) => ports.map((p) => [element("code", {}, p.name), p.datatype, shape(p.shape)]);
  return element("div", { class: "pair" }, table(["Input", "Type", "Shape"], rows(version.inputs), "Inputs"),
    table(["Output", "Type", "Shape"], rows(version.outputs), "Outputs"));
}
