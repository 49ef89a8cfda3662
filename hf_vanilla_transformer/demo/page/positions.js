/** What is added to the embeddings of the source tokens: rows are positions, columns dimensions. */

import { at, clamp, colour, digits, html, mixed, shorten } from "./dom.js";

export class Positions {
  constructor() {
    this.canvas = at("positions");
    this.canvas.addEventListener("pointermove", (event) => {
      if (!this.values) return;
      const box = this.canvas.getBoundingClientRect();
      this.say(Math.floor(((event.clientY - box.top) / box.height) * this.values.length),
        Math.floor(((event.clientX - box.left) / box.width) * this.values[0].length));
    });
    this.canvas.addEventListener("keydown", (event) => {
      const [row, column] = this.cell ?? [0, 0];
      const to = { ArrowUp: [row - 1, column], ArrowDown: [row + 1, column], ArrowLeft: [row, column - 1],
        ArrowRight: [row, column + 1] }[event.key];
      if (!to || !this.values) return;
      event.preventDefault();
      this.say(...to);
    });
    this.canvas.addEventListener("focus", () => this.values && this.say(...(this.cell ?? [0, 0])));
  }

  show(values, tokens, encoding) {
    const cell = document.activeElement === this.canvas ? this.cell : null;
    [this.values, this.tokens, this.cell] = [values, tokens, null];
    at("position-labels").replaceChildren(...tokens.map((token) => html("div", { text: shorten(token, 10), title: token })));
    this.canvas.setAttribute("aria-label", `Encoding of ${values.length} positions in ${values[0].length} dimensions: `
      + "waves whose lengths grow from left to right. Arrow keys read its numbers.");
    at("position-kind").textContent = encoding === "sinusoidal" ? "Here they are sines and cosines in turn, whose waves get "
      + "longer to the right, until sines stay near 0 and cosines near 1." : `Here: ${encoding}.`;
    at("position-said").textContent = "Point at it, or focus it and use the arrow keys, to read a number.";
    this.draw();
    if (cell) this.say(...cell);  // a number that is being read is not taken away
  }

  /** Shows nothing any more, but a sentence that says why. */
  clear(text = "") {
    this.values = null;
    at("position-kind").textContent = "";
    at("position-labels").replaceChildren();
    this.canvas.width = this.canvas.height = 1;
    this.canvas.setAttribute("aria-label", "Encoding of positions");
    at("position-said").textContent = text;
  }

  draw() {
    drawScale();
    if (!this.values) return;
    this.canvas.width = this.values[0].length;
    this.canvas.height = this.values.length;
    const context = this.canvas.getContext("2d"), shade = diverging();
    this.values.forEach((row, i) => row.forEach((value, j) => {
      context.fillStyle = shade(value);
      context.fillRect(j, i, 1, 1);
    }));
  }

  say(row, column) {
    row = clamp(row, 0, this.values.length - 1);
    column = clamp(column, 0, this.values[0].length - 1);
    this.cell = [row, column];
    at("position-said").textContent = `Position ${row}, ${this.tokens[row]}, dimension ${column}: `
      + digits(this.values[row][column], 3);
  }
}

function diverging() {
  const [low, none, high] = [colour("--low"), colour("--field"), colour("--high")];
  return (value) => mixed(none, value < 0 ? low : high, Math.min(1, Math.abs(value)));
}

function drawScale() {
  const canvas = at("scale"), context = canvas.getContext("2d"), shade = diverging();
  for (let x = 0; x < canvas.width; x++) {
    context.fillStyle = shade((2 * x) / (canvas.width - 1) - 1);
    context.fillRect(x, 0, 1, 1);
  }
}
