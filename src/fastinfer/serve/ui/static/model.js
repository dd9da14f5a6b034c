// SPDX-License-Identifier: Apache-2.0
// Everything about one model.

import { Bars, Lines } from "./charts.js";
import { count, element, rate, seconds } from "./dom.js";
import { TryPanel } from "./try.js";
import { Versions, signature } from "./versions.js";

export class ModelView {
  constructor(model, bounds, changed) {
    this.name = model.name;
    this.bounds = bounds;
    this.tiles = { rate: new Lines("Requests per second"), latency: new Lines("Latency, median", 2), batch: new Bars("Rows per call"), queue: new Lines("Waiting requests") };
    this.versions = new Versions(changed);
    this.facts = element("p", { class: "facts" });
    this.ports = element("section", { hidden: true });
    this.attempt = new TryPanel(model.name);
    this.node = element("article", {}, element("div", {}, element("h2", {}, model.name), this.facts),
      element("div", { class: "tiles" }, Object.values(this.tiles).map((t) => t.node)), this.versions.node, this.attempt.node, this.ports);
  }

  update(model, figures) {
    this.showTiles(figures.all);
    this.versions.update(model, figures.versions);
    const text = JSON.stringify([model.description, model.owner, model.labels]);
    if (text !== this.factsDrawn) {
      this.factsDrawn = text;
      const labels = Object.entries(model.labels).map(([k, v]) => element("span", { class: "chip" }, `${k}: ${v}`));
      this.facts.replaceChildren(...[model.description, model.owner && element("span", { class: "quiet" }, `by ${model.owner}`), ...labels].filter(Boolean));
    }
    const loaded = model.versions.filter((v) => v.loaded);
    this.attempt.update(loaded, model.live, model.may.includes("infer"));
    this.showPorts(loaded.find((v) => v.version === model.live) ?? loaded.at(-1));
  }

  showTiles(f) {
    const { rate: requests, latency, batch, queue } = this.tiles;
    requests.add(rate(f.rate), f.failed ? `${rate(f.failed)} failed/s` : `${rate(f.rowRate)} rows/s`, f.rate);
    requests.more.classList.toggle("bad", f.failed > 0);
    latency.add(seconds(f.p50), f.p50 ? `p90 ${seconds(f.p90)} · p99 ${seconds(f.p99)}` : "no request lately", f.p50, f.p99);
    batch.add(f.batch ? Number(f.batch.toPrecision(3)).toString() : "–", "requests, by rows of their call", f.batches, this.bounds.rows);
    queue.add(count(f.waiting), f.queue99 ? `wait p50 ${seconds(f.queue50)} · p99 ${seconds(f.queue99)}` : "in the queue", f.waiting);
  }

  showPorts(version) {
    const text = JSON.stringify(version && [version.version, version.inputs, version.outputs]);
    if (text === this.portsDrawn) return;
    this.portsDrawn = text;
    this.ports.hidden = !version;
    this.ports.replaceChildren(...(version ? [element("h3", {}, `Signature of version ${version.version}`), signature(version)] : []));
  }
}
