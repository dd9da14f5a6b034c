// SPDX-License-Identifier: Apache-2.0
// The page: asks for the overview each second while it is visible, and shows what changed.

import * as api from "./api.js";
import { ask } from "./dialog.js";
import { count, duration, element, rate, write } from "./dom.js";
import { Recent } from "./figures.js";
import { ModelView } from "./model.js";
import { tone } from "./versions.js";

const INTERVAL = 1000; // milliseconds
const MANY = 8; // models from which on they can be filtered
const $ = (id) => document.getElementById(id);
const chosen = () => { try { return decodeURIComponent(location.hash.slice(1)); } catch { return ""; } };
let recent = new Recent();
let view = null; // of the chosen model
let links = new Map(); // model → {item, dot, rate}
let last = null; // the overview on display

const status = (text, kind) => {
  write($("state"), text);
  $("state").className = `chip ${kind}`;
};

function tell(text) {
  write($("trouble"), text);
  $("trouble").hidden = !text;
}

// In place of a model: what is amiss, or what to do.
function instead(title, ...rest) {
  const text = title + rest.map((r) => r.textContent ?? r).join("");
  if (view === null && $("detail").dataset.shown === text) return;
  view = null;
  $("detail").dataset.shown = text;
  $("detail").replaceChildren(element("div", { class: "empty" }, element("h2", {}, title), ...rest));
}

function face(model) {
  const live = model.versions.find((v) => v.version === model.live);
  return live ? tone(live) : model.versions.some((v) => tone(v) === "bad") ? "bad" : model.versions.some((v) => tone(v) === "warm") ? "warm" : "quiet";
}

function drawLinks(models, figures, name) {
  if ([...links.keys()].join("/") !== models.map((m) => m.name).join("/")) {
    links = new Map(models.map((m) => {
      const dot = element("span", { class: "dot", "aria-hidden": "true" });
      const figure = element("span", { class: "num quiet" });
      const link = element("a", { href: `#${encodeURIComponent(m.name)}` }, dot, element("span", { class: "name" }, m.name), figure);
      return [m.name, { item: element("li", {}, link), link, dot, figure }];
    }));
    $("models").replaceChildren(...[...links.values()].map((l) => l.item));
    $("choose").replaceChildren(...models.map((m) => element("option", { value: m.name }, m.name)));
    $("filter").hidden = models.length < MANY;
    filter();
  }
  for (const m of models) {
    const { link, dot, figure } = links.get(m.name);
    dot.className = `dot ${face(m)}`;
    const { all } = figures.get(m.name);
    write(figure, all.rate ? `${rate(all.rate)}/s` : "");
    if (m.name === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  $("choose").value = name;
}

function filter() {
  const wanted = $("filter").value.toLowerCase();
  for (const [name, { item }] of links) item.hidden = !name.toLowerCase().includes(wanted);
}

function drawCaller(caller) {
  $("who").hidden = caller?.anyone ?? false;
  const name = caller?.name || "";
  write($("who"), api.key.get() ? `Key: ${name || "not accepted"}` : "Enter API key");
}

function drawModel() {
  if (!last) return;
  const { data, figures } = last;
  const model = data.models.find((m) => m.name === chosen()) ?? data.models[0];
  $("nav").hidden = !model;
  if (!model) {
    const how = element("pre", {}, "fastinfer models push DIR NAME model.onnx");
    instead("No models yet", element("p", {}, "Put one into the repository that this server reads, then tell it (SIGHUP):"), how);
    return;
  }
  drawLinks(data.models, figures, model.name);
  if (view?.name !== model.name) {
    view = new ModelView(model, data.bounds, refresh);
    delete $("detail").dataset.shown;
    $("detail").replaceChildren(view.node);
    document.title = `${model.name} · fastinfer`;
  }
  view.update(model, figures.get(model.name));
}

function draw(data) {
  const figures = recent.add(data, performance.now() / 1000);
  last = { data, figures };
  write($("version"), data.server.version);
  const missing = data.models.filter((m) => !m.live).map((m) => m.name);
  const why = missing.length ? `: ${missing[0]}${missing.length > 1 ? ` and ${missing.length - 1} more` : ""}` : "";
  status(data.server.ready ? "ready" : `not ready${why}`, data.server.ready ? "good" : "warm");
  const all = [...figures.values()].reduce((a, f) => a + f.all.rate, 0);
  write($("totals"), `${count(data.models.length)} model${data.models.length === 1 ? "" : "s"} · ${rate(all)} req/s · up ${duration(data.server.uptime)}`);
  drawCaller(data.caller);
  document.body.classList.remove("stale");
  tell("");
  drawModel();
}

function refused(error) {
  recent = new Recent();
  last = null;
  status("no access", "warm");
  write($("totals"), "");
  tell("");
  $("nav").hidden = true;
  drawCaller(null);
  const given = api.key.get() ? "The key was not accepted" : "An API key is needed";
  instead(error.status === 403 ? "This key may not see the models" : given, element("p", { class: "quiet" }, error.message), element("button", { class: "main", onclick: enterKey, type: "button" }, "Enter API key"));
}

async function refresh() {
  try {
    draw(await api.overview());
  } catch (error) {
    if (error.status === 401 || error.status === 403) refused(error);
    else {
      status(error.status ? "trouble" : "no answer", "bad");
      document.body.classList.add("stale");
      tell(`${error.message}. Trying again each second${last ? "; what is shown is old" : ""}.`);
      if (!last) instead("No figures yet");
    }
  }
}

async function enterKey() {
  const input = element("input", { type: "password", id: "key", autocomplete: "off", spellcheck: "false", required: true });
  const forget = element("button", { type: "button", onclick: () => { api.key.set(""); input.closest("dialog").close(); refresh(); } }, "Forget key");
  const body = element("div", {}, element("p", { class: "quiet" }, "It stays in this tab until it is closed, and goes to this server only."),
    element("label", { for: "key" }, "API key or bearer token ", input));
  const use = async () => {
    const value = input.value.trim();
    if (!/^[!-~]+$/.test(value)) throw new Error("Keys have letters, digits and signs of ASCII only, and no spaces.");
    api.key.set(value);
  };
  await ask({ title: "API key", confirm: "Use key", body, more: api.key.get() ? [forget] : [], act: use });
  await refresh();
}

// One question at a time: the next one is asked when the one before is answered.
async function loop() {
  if (!document.hidden) await refresh();
  setTimeout(loop, INTERVAL);
}

$("filter").addEventListener("input", filter);
$("choose").addEventListener("change", (event) => (location.hash = encodeURIComponent(event.target.value)));
$("who").addEventListener("click", enterKey);
$("skip").addEventListener("click", (event) => { event.preventDefault(); $("detail").focus(); });
window.addEventListener("hashchange", drawModel);
document.addEventListener("visibilitychange", () => document.hidden || refresh());
loop();
