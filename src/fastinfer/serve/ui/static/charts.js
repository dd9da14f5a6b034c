// SPDX-License-Identifier: Apache-2.0
// Tiles of live figures. The drawings are hidden from screen readers: the numbers beside them say it.

import { element, write } from "./dom.js";

const SPACE = "http://www.w3.org/2000/svg";
const KEPT = 120; // points, one a second

function drawing(width, height) {
  const svg = document.createElementNS(SPACE, "svg");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  return svg;
}

// title, a large figure, a line of smaller ones, and a drawing.
class Tile {
  constructor(title, picture) {
    this.figure = element("div", { class: "figure" }, "–");
    this.more = element("div", { class: "more" }, "\u00a0");
    this.node = element("section", { class: "tile" }, element("h3", {}, title), this.figure, this.more, picture);
  }

  tell(figure, more) {
    write(this.figure, figure);
    write(this.more, more || "\u00a0");
  }
}

// The last two minutes; lines: how many, the first one filled.
export class Lines extends Tile {
  constructor(title, lines = 1) {
    const svg = drawing(KEPT - 1, 40);
    super(title, svg);
    this.values = Array.from({ length: lines }, () => []);
    const path = (kind) => {
      const made = svg.appendChild(document.createElementNS(SPACE, "path"));
      made.setAttribute("class", kind);
      return made;
    };
    this.area = path("area");
    this.paths = this.values.map((_, i) => path(`line line${i}`));
  }

  add(figure, more, ...values) {
    this.tell(figure, more);
    this.values = this.values.map((kept, i) => [...kept, values[i]].slice(-KEPT));
    const top = Math.max(...this.values.flat(), 1e-12);
    const points = (kept) => kept.map((v, i) => `${KEPT - kept.length + i},${(39 - (v / top) * 37).toFixed(1)}`);
    this.values.forEach((kept, i) => this.paths[i].setAttribute("d", kept.length > 1 ? `M${points(kept).join("L")}` : ""));
    const under = points(this.values[0]);
    this.area.setAttribute("d", under.length > 1 ? `M${KEPT - under.length},40L${under.join("L")}L${KEPT - 1},40Z` : "");
  }
}

// How the requests of the last seconds are spread over the bounds.
export class Bars extends Tile {
  constructor(title) {
    const columns = element("div", { class: "columns", "aria-hidden": "true" });
    super(title, columns);
    this.columns = columns;
  }

  add(figure, more, counts, bounds) {
    this.tell(figure, more);
    if (this.columns.childElementCount !== bounds.length + 1) {
      const labels = [...bounds.map(String), ">"];
      this.columns.replaceChildren(...labels.map((l) => element("div", {}, element("div", { class: "track" }, element("i")), element("span", {}, l))));
    }
    const top = Math.max(...counts, 1);
    [...this.columns.children].forEach((column, i) => column.querySelector("i").style.setProperty("height", `${(100 * (counts[i] ?? 0)) / top}%`));
  }
}
