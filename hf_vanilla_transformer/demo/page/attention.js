/** What every head attends to: small maps of all heads, and of one of them ribbons between tokens and a heat map. */

import { at, blank, clamp, colour, counted, html, mixed, percent, redraw, rove, shorten, svg } from "./dom.js";

const ROW = 26, THICK = 22, LETTER = 8.2, FAINT = 0.01;

const TITLES = {
  cross: ["Target tokens attend to source tokens", "source", "target"],
  decoder: ["Target tokens attend to those read before", "read", "target"],
  encoder: ["Source tokens attend to source tokens", "source", "source"],
};

export class Attention {
  constructor() {
    this.pinned = { layer: 0, head: "mean" };
    this.shown = this.pinned;
    at("kind").addEventListener("change", () => this.draw());
    const heads = at("heads");
    const headOf = (event) => event.target.closest?.("[data-head]");
    const look = (event) => { const head = headOf(event); if (head) this.look(head); };
    heads.addEventListener("pointerover", look);
    heads.addEventListener("focusin", look);
    heads.addEventListener("pointerleave", () => this.look(null));
    heads.addEventListener("focusout", (event) => { if (!heads.contains(event.relatedTarget)) this.look(null); });
    heads.addEventListener("click", (event) => { const head = headOf(event); if (head) this.pin(head); });
    heads.addEventListener("keydown", (event) => this.walkHeads(event));
    at("flow").addEventListener("keydown", (event) => this.walkTokens(event));
    // Chromium stops at a picture that listens for the focus: its box listens.
    const box = at("flow").closest(".scroll");
    for (const name of ["pointerover", "focusin"]) {
      box.addEventListener(name, (event) => {
        const token = event.target.closest("[data-side]");
        if (token) this.light(token.dataset.side, Number(token.dataset.index));
      });
    }
    at("flow").addEventListener("pointerleave", () => this.light(null));
    box.addEventListener("focusout", (event) => {
      if (!at("flow").contains(event.relatedTarget)) this.light(null);
    });
    at("heat").addEventListener("pointermove", (event) => this.point(event));
    at("heat").addEventListener("pointerleave", () => this.light(null));
    let width = window.innerWidth;
    window.addEventListener("resize", () => {
      if (window.innerWidth !== width) { width = window.innerWidth; this.drawOne(); }
    });
  }

  /** Shows the attention of a hypothesis, and marks the token of one of its rows; -1 for none. */
  show(record, row) {
    [this.record, this.row] = [record, row];
    at("attention-of").replaceChildren(...described(record));
    this.draw();
  }

  /** Shows nothing any more, but a sentence that says why. */
  clear(text = "") {
    this.record = null;
    at("attention-of").textContent = text;
    at("heads").replaceChildren();
    for (const picture of ["flow", "heat"]) blank(at(picture));
    for (const said of ["flow-title", "flow-said", "heat-said"]) at(said).textContent = "";
  }

  /** Marks another row of the same hypothesis. */
  mark(row) {
    this.row = row;
    if (this.record) this.relight();
  }

  /** Lights the token that has the focus, or else the chosen one. */
  relight() {
    const token = at("flow").contains(document.activeElement) ? document.activeElement.closest("[data-side]") : null;
    this.light(token?.dataset.side ?? null, Number(token?.dataset.index));
  }

  get kind() { return at("kind").value; }

  /** The tokens that attend, and those that are attended to. */
  axes() {
    const { source_tokens: source, target_tokens: target, read_tokens: read } = this.record;
    return { cross: [target, source], decoder: [target, read], encoder: [source, source] }[this.kind];
  }

  weights({ layer, head }) {
    const heads = this.record[this.kind][layer];
    if (head !== "mean") return heads[head];
    return heads[0].map((row, i) => row.map((_, j) => heads.reduce((sum, each) => sum + each[i][j], 0) / heads.length));
  }

  draw() {
    if (!this.record) return;
    const layers = this.record[this.kind];
    const fits = ({ layer, head }) => layer < layers.length && (head === "mean" || head < layers[layer].length);
    if (!this.ever || !fits(this.pinned)) {
      // The second-to-last layer is the one that aligns words best, as `translate --alignments` has it.
      this.pinned = { layer: Math.max(0, layers.length - 2), head: "mean" };
      this.ever = true;
    }
    this.shown = this.pinned;
    redraw(at("heads"), () => this.drawHeads());
    this.drawOne();
  }

  drawHeads() {
    const layers = this.record[this.kind], names = ["mean", ...layers[0].keys()];
    const columns = [html("span", {}), ...names.map((head) => html("span", { class: "column", "aria-hidden": "true",
      text: head === "mean" ? "mean" : head + 1 }))];
    const rows = layers.flatMap((_, layer) => [
      html("span", { class: "column", "aria-hidden": "true", text: "L" + (layer + 1) }),
      ...names.map((head) => {
        const picture = html("canvas", { "aria-hidden": "true" });
        paint(picture, this.weights({ layer, head }));
        return html("button", { type: "button", role: "radio", class: "thumb", "data-layer": layer, "data-head": head,
          "aria-label": title({ layer, head }), title: title({ layer, head }) }, picture);
      }),
    ]);
    at("heads").replaceChildren(...columns, ...rows);
    at("heads").style.gridTemplateColumns = `1.7rem repeat(${names.length}, minmax(0, 3.6rem))`;
    this.markHeads();
  }

  thumbs() { return [...at("heads").querySelectorAll("[data-head]")]; }

  markHeads() {
    const isOf = (thumb, { layer, head }) => Number(thumb.dataset.layer) === layer && thumb.dataset.head === String(head);
    const thumbs = this.thumbs();
    for (const thumb of thumbs) {
      thumb.setAttribute("aria-checked", isOf(thumb, this.pinned));
      thumb.classList.toggle("shown", isOf(thumb, this.shown));
    }
    rove(thumbs, thumbs.findIndex((thumb) => isOf(thumb, this.pinned)));
  }

  look(thumb) {
    const shown = thumb ? place(thumb) : this.pinned;
    if (shown.layer === this.shown.layer && shown.head === this.shown.head) return;
    this.shown = shown;
    for (const each of this.thumbs()) each.classList.toggle("shown", each === thumb);
    if (!thumb) this.markHeads();
    this.drawOne();
  }

  pin(thumb) {
    this.pinned = this.shown = place(thumb);
    this.markHeads();
    this.drawOne();
  }

  walkHeads(event) {
    const thumbs = this.thumbs(), index = thumbs.indexOf(event.target);
    if (index < 0) return;
    const width = this.record[this.kind][0].length + 1, column = index % width;
    const to = {
      ArrowLeft: column ? index - 1 : index, ArrowRight: column < width - 1 ? index + 1 : index,
      ArrowUp: index - width, ArrowDown: index + width, Home: 0, End: thumbs.length - 1,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    if (thumbs[to]) { rove(thumbs, to); thumbs[to].focus(); }
  }

  /** The ribbons and the heat map of the head that is looked at. */
  drawOne() {
    if (!this.record) return;
    this.matrix = this.weights(this.shown);
    at("flow-title").textContent = title(this.shown);
    redraw(at("flow"), () => this.drawFlow());
    this.drawHeat();
    this.relight();
  }

  drawFlow() {
    const [rows, columns] = this.axes(), [, left, right] = TITLES[this.kind];
    const wide = (tokens) => Math.max(4, ...tokens.map((each) => [...shorten(each, 14)].length)) * LETTER + 16;
    const [leftWidth, rightWidth] = [wide(columns), wide(rows)];
    const space = at("flow").closest(".scroll").clientWidth;
    const width = Math.max(leftWidth + rightWidth + 90, Math.min(space, 560));
    const height = Math.max(rows.length, columns.length) * ROW + 24;
    const top = (count) => 24 + (height - 24 - count * ROW) / 2;
    const middle = { columns: (j) => top(columns.length) + (j + 0.5) * ROW, rows: (i) => top(rows.length) + (i + 0.5) * ROW };
    // At a target token the ribbons fill its box, because a row sums to 1; at a source token, the busiest box.
    const sums = columns.map((_, j) => this.matrix.reduce((sum, row) => sum + row[j], 0));
    const scale = THICK / Math.max(1, ...sums);
    const begin = sums.map((sum, j) => middle.columns(j) - (sum * scale) / 2);
    const ribbons = svg("g", { class: "ribbons", "aria-hidden": "true" });
    const [x1, x2] = [leftWidth, width - rightWidth], bend = (x1 + x2) / 2;
    this.matrix.forEach((row, i) => {
      let y = middle.rows(i) - THICK / 2;
      row.forEach((weight, j) => {
        const [a, b, c, d] = [begin[j], begin[j] + weight * scale, y, y + weight * THICK];
        begin[j] = b;
        y = d;
        if (weight < FAINT) return;
        ribbons.append(svg("path", {
          d: `M${x1},${a}C${bend},${a} ${bend},${c} ${x2},${c}L${x2},${d}C${bend},${d} ${bend},${b} ${x1},${b}Z`,
          "data-row": i, "data-column": j, "fill-opacity": (0.2 + 0.6 * weight).toFixed(3),
        }));
      });
    });
    const list = (side, tokens, x, boxWidth, name) => {
      const group = svg("g", { role: "listbox", "aria-label": name + " tokens" });
      group.append(svg("text", { class: "axis", x: side === "columns" ? x + boxWidth : x, y: 12,
        "text-anchor": side === "columns" ? "end" : "start", text: name }));
      tokens.forEach((token, index) => {
        group.append(svg("g", { class: "token", role: "option", "aria-selected": "false", "data-side": side,
          "data-index": index, tabindex: index ? "-1" : "0", "aria-label": this.sentence(side, index) },
          svg("rect", { x, y: middle[side](index) - THICK / 2, width: boxWidth, height: THICK, rx: 5 }),
          svg("text", { x: x + boxWidth / 2, y: middle[side](index) + 4.5, text: shorten(token, 14) })));
      });
      return group;
    };
    at("flow").replaceChildren(ribbons, list("columns", columns, 1, leftWidth - 4, left),
      list("rows", rows, x2 + 3, rightWidth - 4, right));
    size(at("flow"), width, height);
    at("flow").setAttribute("role", "group");
    at("flow").setAttribute("aria-label", TITLES[this.kind][0] + ", " + title(this.shown));
  }

  drawHeat() {
    const [rows, columns] = this.axes();
    const label = Math.max(...rows.map((each) => [...shorten(each, 12)].length)) * 7.2 + 10;
    const rise = Math.max(...columns.map((each) => [...shorten(each, 12)].length)) * 6.2 + 14;
    const space = at("heat").closest(".scroll").clientWidth;
    const cell = clamp((space - label - 34) / columns.length, 13, 28);
    this.heat = { label, rise, cell };
    const grid = svg("g", { transform: `translate(${label},${rise})`, class: "cells" });
    grid.append(svg("rect", { class: "ground", width: columns.length * cell, height: rows.length * cell }));
    this.matrix.forEach((row, i) => row.forEach((weight, j) => {
      if (weight >= 0.005) grid.append(svg("rect", { class: "cell", x: j * cell, y: i * cell, width: cell - 1,
        height: cell - 1, "fill-opacity": Math.sqrt(weight).toFixed(3) }));
    }));
    this.cross = [svg("rect", { class: "cross", x: 0, width: columns.length * cell, height: cell }),
      svg("rect", { class: "cross", y: 0, width: cell, height: rows.length * cell })];
    grid.append(...this.cross);
    const names = [
      ...rows.map((token, i) => svg("text", { x: label - 5, y: rise + (i + 0.5) * cell + 4, "text-anchor": "end",
        text: shorten(token, 12) })),
      ...columns.map((token, j) => svg("text", {
        transform: `translate(${label + (j + 0.5) * cell + 3},${rise - 5}) rotate(-60)`, text: shorten(token, 12) })),
    ];
    at("heat").replaceChildren(grid, ...names);
    size(at("heat"), label + columns.length * cell + 34, rise + rows.length * cell + 4);
    at("heat").setAttribute("role", "img");
    at("heat").setAttribute("aria-label", `Heat map, ${title(this.shown)}: ${rows.length} rows attend to `
      + `${columns.length} columns; the tokens beside it say the numbers`);
  }

  /** What is said of a token: where it attends to, or where it is attended from. */
  sentence(side, index) {
    const [rows, columns] = this.axes();
    const own = side === "rows" ? rows[index] : columns[index], others = side === "rows" ? columns : rows;
    const weights = side === "rows" ? this.matrix[index] : this.matrix.map((row) => row[index]);
    const best = [...weights.keys()].sort((one, other) => weights[other] - weights[one])
      .filter((each) => weights[each] >= 0.01).slice(0, 3);
    const listed = best.map((each) => `${others[each]} ${percent(weights[each])}`).join(", ") || "nothing much";
    return side === "rows" ? `${own} attends to ${listed}` : `${own} is attended to by ${listed}`;
  }

  /** Shows what belongs to a token, in both pictures; null for none. */
  light(side, index) {
    if (!this.record) return;
    const key = side === "rows" ? "row" : "column";
    for (const path of at("flow").querySelectorAll("path")) {
      const isOwn = side && Number(path.dataset[key]) === index;
      const isCurrent = !side && this.kind !== "encoder" && Number(path.dataset.row) === this.row;
      path.classList.toggle("lit", Boolean(isOwn) || isCurrent);
      path.classList.toggle("dim", Boolean(side) && !isOwn);
    }
    for (const token of at("flow").querySelectorAll("[data-side]")) {
      const isOwn = token.dataset.side === side && Number(token.dataset.index) === index;
      token.setAttribute("aria-selected", isOwn);
      token.classList.toggle("current", token.dataset.side === "rows" && this.kind !== "encoder"
        && Number(token.dataset.index) === this.row);
    }
    this.cross[0].classList.toggle("on", side === "rows");
    this.cross[1].classList.toggle("on", side === "columns");
    if (!side && this.kind !== "encoder" && this.row >= 0 && this.row < this.matrix.length) {
      this.cross[0].classList.add("on");
      this.cross[0].setAttribute("y", this.row * this.heat.cell);
    }
    if (side === "rows") this.cross[0].setAttribute("y", index * this.heat.cell);
    if (side === "columns") this.cross[1].setAttribute("x", index * this.heat.cell);
    at("flow-said").textContent = side ? this.sentence(side, index) : TITLES[this.kind][0] + ".";
    at("heat-said").textContent = "Rows attend to columns.";
  }

  walkTokens(event) {
    const token = event.target.closest("[data-side]");
    if (!token) return;
    const [rows, columns] = this.axes(), { side } = token.dataset, index = Number(token.dataset.index);
    const count = (side === "rows" ? rows : columns).length;
    const to = {
      ArrowUp: [side, index - 1], ArrowDown: [side, index + 1], Home: [side, 0], End: [side, count - 1],
      ArrowLeft: ["columns", Math.min(index, columns.length - 1)], ArrowRight: ["rows", Math.min(index, rows.length - 1)],
    }[event.key];
    if (!to) return;
    event.preventDefault();
    const goal = at("flow").querySelector(`[data-side="${to[0]}"][data-index="${to[1]}"]`);
    if (!goal) return;
    const group = [...at("flow").querySelectorAll(`[data-side="${to[0]}"]`)];
    rove(group, to[1]);
    goal.focus();
  }

  /** The cell under the pointer. */
  point(event) {
    if (!this.record) return;
    const box = at("heat").getBoundingClientRect(), { label, rise, cell } = this.heat, [rows, columns] = this.axes();
    const j = Math.floor((event.clientX - box.left - label) / cell), i = Math.floor((event.clientY - box.top - rise) / cell);
    if (!rows[i] || !columns[j] || i < 0 || j < 0) return;
    this.light("rows", i);
    this.cross[1].classList.add("on");
    this.cross[1].setAttribute("x", j * cell);
    at("heat-said").textContent = `${rows[i]} attends to ${columns[j]}: ${percent(this.matrix[i][j])}`;
  }
}

const place = (thumb) => ({
  layer: Number(thumb.dataset.layer), head: thumb.dataset.head === "mean" ? "mean" : Number(thumb.dataset.head),
});

const title = ({ layer, head }) => `Layer ${layer + 1}, ${head === "mean" ? "mean of the heads" : "head " + (head + 1)}`;

function described(record) {
  return [document.createTextNode("Of the hypothesis "), html("b", { text: record.translation || "(nothing)" }),
    document.createTextNode(`, ${counted(record.target_tokens.length, "token")} up to ${record.target_tokens.at(-1)}. `
      + "The ribbons of the token that is chosen in the tree are strong.")];
}

function size(picture, width, height) {
  picture.setAttribute("width", width);
  picture.setAttribute("height", height);
  picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
}

/** A small map of a matrix: a pixel for a weight, which the style sheet enlarges. */
function paint(canvas, matrix) {
  canvas.width = matrix[0].length;
  canvas.height = matrix.length;
  const context = canvas.getContext("2d"), [page, shade] = [colour("--field"), colour("--shade")];
  matrix.forEach((row, i) => row.forEach((weight, j) => {
    context.fillStyle = mixed(page, shade, Math.sqrt(weight));
    context.fillRect(j, i, 1, 1);
  }));
}
