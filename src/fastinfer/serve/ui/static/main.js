// SPDX-License-Identifier: Apache-2.0
// The page: asks for the overview each second while it is visible, and shows what changed.

import * as api from "./api.js";
import { Chart, bytes, count, element, seconds, table } from "./dom.js";
import { tryPanel } from "./try.js";

const $ = (id) => document.getElementById(id);
const COLOURS = { READY: "good", LOADING: "warm", UNLOADING: "warm", UNAVAILABLE: "bad", UNKNOWN: "quiet" };
let chosen = decodeURIComponent(location.hash.slice(1));
let view = null; // what is drawn for the chosen model
const before = new Map(); // name → what was counted a second ago

function tell(text) {
  $("trouble").textContent = text;
  $("trouble").hidden = !text;
}

class View {
  constructor(model) {
    this.name = model.name;
    this.charts = {
      rate: new Chart("requests per second", count),
      p50: new Chart("latency p50", seconds),
      p99: new Chart("latency p99", seconds),
      rows: new Chart("rows per call", count),
      queue: new Chart("waiting", count),
    };
    this.versions = element("div");
    this.traffic = element("div");
    this.attempt = element("div");
    this.tried = "";
    const facts = [model.description, model.owner && `by ${model.owner}`, Object.entries(model.labels ?? {}).map(([k, v]) => `${k}=${v}`).join(", ")];
    $("detail").replaceChildren(element("h2", {}, model.name), element("p", { class: "quiet" }, facts.filter(Boolean).join(" · ")),
      element("div", { class: "charts" }, Object.values(this.charts).map((c) => c.node)), this.versions, this.traffic, this.attempt);
  }

  update(model, figures) {
    for (const [name, chart] of Object.entries(this.charts)) chart.add(figures[name]);
    const text = JSON.stringify([model.versions.map((v) => [v.version, v.state, v.reason, v.requests, v.failures, v.memory]), model.aliases, model.traffic]);
    if (text === this.drawn) return; // buttons keep their focus
    this.drawn = text;
    this.versions.replaceChildren(element("h3", {}, "Versions"), table(["version", "state", ">requests", ">failed", ">p50", ">p99", ">memory", ""],
      model.versions.map((v) => [this.label(model, v), this.state(v), count(v.requests), count(v.failures), seconds(v.p50), seconds(v.p99), bytes(v.memory), this.buttons(model, v)])));
    this.traffic.replaceChildren(...this.split(model));
    const ready = model.versions.filter((v) => v.state === "READY");
    const shown = ready.find((v) => v.version === model.live) ?? ready.at(-1);
    if (shown && this.tried !== shown.version) {
      this.tried = shown.version;
      this.attempt.replaceChildren(tryPanel(model.name, shown));
    }
  }

  label(model, v) {
    const names = Object.entries(model.aliases).filter(([, version]) => version === v.version).map(([alias]) => alias);
    return element("span", {}, element("b", {}, v.version), ...names.map((n) => element("span", {}, " ", element("span", { class: "chip" }, n))));
  }

  state(v) {
    return element("span", { class: `dot ${COLOURS[v.state] ?? "quiet"}` }, v.state.toLowerCase(), v.reason ? ` · ${v.reason}` : "");
  }

  buttons(model, v) {
    const act = (work, question) => async () => {
      if (!confirm(question)) return;
      try {
        await work();
        tell("");
        await refresh();
      } catch (error) {
        tell(error.message);
      }
    };
    const stable = model.aliases.stable;
    const made = [];
    if (v.state === "READY" && v.version !== stable) {
      made.push(element("button", { onclick: act(() => api.promote(model.name, v.version, "stable"), `Make version ${v.version} of ${model.name} the stable one?`) }, "Promote"));
    } else if (v.version === stable) {
      made.push(element("button", { onclick: act(() => api.rollback(model.name, "stable"), `Take back the last promotion of ${model.name}?`) }, "Roll back"));
    }
    return element("span", { class: "row" }, made);
  }

  split(model) {
    if (!model.traffic.length) return [];
    const bars = model.traffic.map((t, i) => element("span", { style: `flex:${Math.max(t.percent, 0.5)};--i:${i}` }, `${t.version}: ${t.shadow ? "shadow of " : ""}${t.percent} %`));
    return [element("h3", {}, "Traffic"), element("div", { class: "split" }, bars)];
  }
}

function figures(model, now) {
  const sum = (field) => model.versions.reduce((a, v) => a + v[field], 0);
  const last = before.get(model.name);
  const seen = { at: now, requests: sum("requests"), rows: sum("rows"), calls: sum("calls") };
  before.set(model.name, seen);
  const live = model.versions.find((v) => v.version === model.live) ?? model.versions.at(-1);
  const since = (field) => (last ? Math.max(seen[field] - last[field], 0) : 0);
  const elapsed = last ? (seen.at - last.at) / 1000 : 1;
  return { rate: since("requests") / elapsed, p50: live?.p50 ?? 0, p99: live?.p99 ?? 0, rows: since("calls") ? since("rows") / since("calls") : 0, queue: sum("queue") };
}

function draw(data) {
  $("version").textContent = data.server.version;
  $("state").textContent = data.server.ready ? "ready" : "not ready";
  $("state").className = `chip ${data.server.ready ? "good" : "bad"}`;
  const now = performance.now();
  const all = new Map(data.models.map((m) => [m.name, figures(m, now)]));
  const rate = [...all.values()].reduce((a, f) => a + f.rate, 0);
  $("totals").textContent = `${data.models.length} models · ${count(rate)} requests/s · up ${seconds(data.server.uptime)}`;
  if (!data.models.some((m) => m.name === chosen)) chosen = data.models[0]?.name ?? "";
  const state = (m) => m.versions.find((v) => v.version === m.live)?.state ?? m.versions.at(-1)?.state ?? "UNKNOWN";
  $("models").replaceChildren(...data.models.map((m) => element("li", {}, element("button",
    { "aria-current": String(m.name === chosen), class: `dot ${COLOURS[state(m)]}`, onclick: () => choose(m.name) }, element("span", { style: "color:var(--ink)" }, m.name)))));
  const model = data.models.find((m) => m.name === chosen);
  if (!model) return;
  if (view?.name !== chosen) view = new View(model);
  view.update(model, all.get(chosen));
}

function choose(name) {
  chosen = name;
  history.replaceState(null, "", `#${encodeURIComponent(name)}`);
  refresh();
}

async function refresh() {
  try {
    draw(await api.overview());
    if ($("trouble").dataset.lost) tell("");
    delete $("trouble").dataset.lost;
  } catch (error) {
    $("state").textContent = "no answer";
    $("state").className = "chip bad";
    $("trouble").dataset.lost = "1";
    tell(error.message);
  }
}

$("key").value = api.key.get();
$("access").addEventListener("submit", (event) => {
  event.preventDefault();
  api.key.set($("key").value);
  refresh();
});
await refresh();
setInterval(() => document.hidden || refresh(), 1000);
