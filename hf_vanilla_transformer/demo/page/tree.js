/** The beam search as a tree: where its nodes stand, how they look, and how one walks through them. */

import { at, blank, clamp, counted, digits, html, percent, redraw, shorten, svg } from "./dom.js";

const ROW = 34, HEIGHT = 26, GAP = 18, LETTER = 7.6, LONGEST = 14, MARGIN = 12, RANK = 20;

/** By state: its mark, so that no state is told by colour alone, its name, and what it means. */
const KINDS = {
  forced: ["", "given", "Given"],
  open: ["", "kept as a beam", "Kept"],
  finished: ["✓", "finished", "Finished"],
  pruned: ["×", "pruned", "Pruned"],
};

/** Whether a node ended a translation that others outscored. */
const isOutscored = (node) => node.state === "pruned" && node.ends;

export class Tree {
  /** `choose(node)` is told which node was chosen by the reader; `enter()` that its next tokens are asked for. */
  constructor(choose, enter) {
    this.choose = choose;
    this.enter = enter;
    this.box = at("tree");
    this.box.addEventListener("click", (event) => {
      const place = event.target.closest("[data-node]");
      if (place) this.select(Number(place.dataset.node), true);
    });
    this.box.addEventListener("keydown", (event) => this.walk(event));
    at("with-pruned").addEventListener("change", () => {
      const before = this.chosen;
      this.draw();
      if (this.chosen !== before) this.choose(this.record.nodes[this.chosen]);
    });
    drawLegend();
  }

  show(record) {
    this.record = record;
    this.children = record.nodes.map(() => []);
    for (const node of record.nodes) if (node.parent !== null) this.children[node.parent].push(node.id);
    // The best hypothesis is to be the straight line at the top: children by the best rank that comes of them.
    this.rank = record.nodes.map(() => Infinity);
    for (const hypothesis of record.hypotheses) this.rank[hypothesis.node] = hypothesis.rank;
    for (const node of [...record.nodes].reverse()) {
      if (node.parent !== null) this.rank[node.parent] = Math.min(this.rank[node.parent], this.rank[node.id]);
    }
    const nodes = record.nodes, isPruned = (id) => nodes[id].state === "pruned";
    for (const each of this.children) {
      each.sort((one, other) => compare(this.rank[one], this.rank[other]) || isPruned(one) - isPruned(other)
        || nodes[other].score - nodes[one].score);
    }
    this.chosen = this.doubtful();
    const hadFocus = this.box.contains(document.activeElement);
    this.draw();
    at("tree-box").scrollLeft = 0;
    if (hadFocus) this.focus();
  }

  /** Shows nothing any more. */
  clear() {
    this.record = null;
    blank(this.box);
  }

  /** Where the best hypothesis was least sure of what follows: there is something to see. */
  doubtful() {
    const { nodes, hypotheses, forced } = this.record;
    const sure = (node) => Math.max(...node.next.map(([, , probability]) => probability));
    const asked = this.path(hypotheses[0]?.node ?? 0).map((id) => nodes[id])
      .filter((node) => node.step >= forced && node.next.length);
    return asked.reduce((one, other) => (sure(other) < sure(one) ? other : one), asked[0] ?? nodes[0]).id;
  }

  /** The best hypothesis that comes of a node; undefined if none does. */
  hypothesisOf(id) {
    return this.record.hypotheses.find((each) => each.rank === this.rank[id]);
  }

  /** The nodes from the root to one. */
  path(id) {
    const path = [];
    for (let node = this.record.nodes[id]; node; node = this.record.nodes[node.parent]) path.unshift(node.id);
    return path;
  }

  visible(id) {
    return at("with-pruned").checked || this.record.nodes[id].state !== "pruned";
  }

  /** Columns of nodes by step. Within a column they stand in the order of their parents, so that no edges cross. */
  columns() {
    const columns = [[0]];
    while (columns.at(-1).length) {
      columns.push(columns.at(-1).flatMap((id) => this.children[id].filter((child) => this.visible(child))));
    }
    columns.pop();
    return columns;
  }

  draw() {
    if (!this.record) return;
    const nodes = this.record.nodes;
    if (!this.visible(this.chosen)) this.chosen = this.record.hypotheses[0]?.node ?? 0;
    this.grid = this.columns();
    this.places = new Map();
    let x = MARGIN, lowest = 0;
    for (const column of this.grid) {
      const widest = Math.max(...column.map((id) => [...this.label(nodes[id])].length));
      const width = Math.max(34, widest * LETTER + 13);
      column.forEach((id, row) => this.places.set(id, { x, y: MARGIN + 8 + row * ROW, width }));
      lowest = Math.max(lowest, column.length);
      const ranked = column.some((id) => nodes[id].state === "finished");
      x += width + GAP + (ranked ? RANK : 0);
    }
    const size = [x - GAP + MARGIN, 2 * MARGIN + lowest * ROW + 6];
    const edges = svg("g", { class: "edges", "aria-hidden": "true" });
    const marks = svg("g", {});
    // Drawn in the order of the columns, which is the order in which a screen reader comes to them.
    for (const column of this.grid) {
      for (const id of column) {
        if (id !== 0) edges.append(this.edge(nodes[id]));
        marks.append(this.node(nodes[id]));
      }
    }
    this.box.replaceChildren(edges, marks);
    this.box.setAttribute("width", size[0]);
    this.box.setAttribute("height", size[1]);
    this.box.setAttribute("viewBox", `0 0 ${size[0]} ${size[1]}`);
    this.box.setAttribute("role", "tree");
    this.box.setAttribute("aria-label", `Beam search, ${this.record.nodes.length} hypotheses considered`);
    this.mark();
  }

  label(node) {
    const [sign] = KINDS[node.state];
    return shorten(node.token, LONGEST) + (sign ? " " + sign : "");
  }

  edge(node) {
    const from = this.places.get(node.parent), to = this.places.get(node.id);
    const [x1, y1, x2, y2] = [from.x + from.width, from.y + HEIGHT / 2, to.x, to.y + HEIGHT / 2];
    const middle = (x1 + x2) / 2;
    return svg("path", {
      d: `M${x1},${y1}C${middle},${y1} ${middle},${y2} ${x2},${y2}`, class: "edge " + node.state,
      "data-edge": node.id, "stroke-width": (1 + 4 * Math.exp(node.log_prob)).toFixed(2),
    });
  }

  node(node) {
    const { x, y, width } = this.places.get(node.id);
    const hypothesis = this.record.hypotheses.find((each) => each.node === node.id);
    const probability = Math.exp(node.log_prob);
    const group = svg("g", {
      class: "node " + node.state + (isOutscored(node) ? " outscored" : ""), transform: `translate(${x},${y})`,
      role: "treeitem", "data-node": node.id, "data-state": node.state, "aria-level": node.step + 1,
      "aria-label": this.describe(node, hypothesis),
      "aria-expanded": this.children[node.id].some((id) => this.visible(id)) ? "true" : undefined,
    });
    group.append(svg("title", { text: this.describe(node, hypothesis) }));
    group.append(svg("rect", { class: "shape", width, height: HEIGHT, rx: node.state === "finished" ? 13 : 6 }));
    if (node.state === "finished") {
      group.append(svg("rect", { class: "inner", x: 2.5, y: 2.5, width: width - 5, height: HEIGHT - 5, rx: 10.5 }));
    }
    group.append(svg("text", { x: width / 2, y: 17, text: this.label(node) }));
    if (node.step > 0) {
      group.append(svg("rect", { class: "chance", x: 6, y: HEIGHT - 4, height: 2, rx: 1,
        width: Math.max(1, probability * (width - 12)) }));
    }
    if (hypothesis) group.append(svg("text", { class: "rank", x: width + 5, y: 17, text: "#" + hypothesis.rank }));
    return group;
  }

  describe(node, hypothesis) {
    if (node.parent === null) return "start";
    const rank = hypothesis ? `, rank ${hypothesis.rank}: ${hypothesis.text}` : "";
    const state = isOutscored(node) ? "finished, but outscored" : KINDS[node.state][1];
    return `${node.token}, token ${node.step}, ${percent(Math.exp(node.log_prob))}, `
      + `log-probability so far ${digits(node.score)}, ${state}${rank}`;
  }

  /** Chooses a node; whether the reader did is told, and moves the focus to it. */
  select(id, byReader = false) {
    this.chosen = id;
    if (!this.places.has(id)) { at("with-pruned").checked = true; this.draw(); }
    this.mark();
    if (byReader) this.focus();
    this.choose(this.record.nodes[id]);
  }

  focus() {
    const group = this.box.querySelector(`[data-node="${this.chosen}"]`);
    group.focus({ preventScroll: true });
    const box = at("tree-box"), { x, y, width } = this.places.get(this.chosen);
    if (x < box.scrollLeft + 40) box.scrollLeft = x - 40;
    if (x + width > box.scrollLeft + box.clientWidth - 60) box.scrollLeft = x + width - box.clientWidth + 60;
    if (y < box.scrollTop) box.scrollTop = y - ROW;
    if (y + HEIGHT > box.scrollTop + box.clientHeight) box.scrollTop = y + ROW - box.clientHeight;
    group.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  mark() {
    const path = new Set(this.path(this.chosen)), best = new Set(this.path(this.record.hypotheses[0]?.node ?? 0));
    for (const group of this.box.querySelectorAll("[data-node]")) {
      const id = Number(group.dataset.node);
      group.classList.toggle("on-path", path.has(id));
      group.classList.toggle("best", best.has(id));
      group.setAttribute("aria-selected", id === this.chosen);
      group.setAttribute("tabindex", id === this.chosen ? "0" : "-1");
    }
    for (const edge of this.box.querySelectorAll("[data-edge]")) {
      edge.classList.toggle("on-path", path.has(Number(edge.dataset.edge)));
      edge.classList.toggle("best", best.has(Number(edge.dataset.edge)));
    }
  }

  walk(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const node = this.record.nodes[this.chosen], column = this.grid[node.step], row = column.indexOf(node.id);
    const best = this.record.hypotheses[0]?.node;
    const to = {
      ArrowLeft: () => node.parent, ArrowRight: () => this.children[node.id].find((id) => this.visible(id)),
      ArrowUp: () => column[clamp(row - 1, 0, column.length - 1)],
      ArrowDown: () => column[clamp(row + 1, 0, column.length - 1)],
      Home: () => 0, End: () => best,
    }[event.key];
    if (event.key === "Enter" || event.key === " ") this.enter();
    else if (!to) return;
    else if ((to() ?? null) !== null) this.select(to(), true);
    event.preventDefault();
  }
}

const compare = (one, other) => (one === other ? 0 : one - other);

function drawLegend() {
  const shapes = Object.entries(KINDS).map(([state, [sign, , title]]) => {
    const picture = svg("svg", { width: 34, height: 20, "aria-hidden": "true" });
    const group = svg("g", { class: "node " + state });
    group.append(svg("rect", { class: "shape", x: 1, y: 1, width: 32, height: 18, rx: state === "finished" ? 9 : 5 }));
    if (state === "finished") group.append(svg("rect", { class: "inner", x: 3, y: 3, width: 28, height: 14, rx: 7 }));
    group.append(svg("text", { x: 17, y: 14, text: sign || "a" }));
    picture.append(group);
    return html("li", {}, picture, document.createTextNode(title));
  });
  const line = svg("svg", { width: 34, height: 20, "aria-hidden": "true" },
    svg("path", { class: "edge best", d: "M2,10H32", "stroke-width": 4 }));
  at("legend").replaceChildren(...shapes, html("li", {}, line, document.createTextNode("The best")),
    html("li", { class: "quiet", text: "Thick lines and long bars: probable tokens" }));
}

/** The hypotheses: those of the search in their order, and what the order was without the penalty. */
export function drawRanks(record, chosen, choose) {
  const found = record.hypotheses, height = 52;
  const from = (each) => (each.rank_without_penalty - 0.5) * height, to = (each) => (each.rank - 0.5) * height;
  const lines = svg("svg", { width: 64, height: found.length * height, class: "slopes", role: "img",
    "aria-label": "From the order by probability, left, to the order by score, right" });
  for (const each of found) {
    const state = each.rank === each.rank_without_penalty ? "same" : each.rank < each.rank_without_penalty ? "up" : "down";
    lines.append(svg("path", { class: "slope " + state, d: `M22,${from(each)}C40,${from(each)} 40,${to(each)} 58,${to(each)}` }));
    lines.append(svg("circle", { class: "slope " + state, cx: 22, cy: from(each), r: 3 }));
    lines.append(svg("text", { x: 8, y: from(each) + 4, text: each.rank_without_penalty }));
  }
  const rows = found.map((each) => {
    const moved = each.rank_without_penalty - each.rank;
    const said = moved === 0 ? "same rank without the penalty"
      : `${moved > 0 ? "▲" : "▼"} ${Math.abs(moved)}: rank ${each.rank_without_penalty} without the penalty`;
    const row = html("button", { type: "button", class: "hypothesis", "data-node": each.node,
      "aria-pressed": String(each.node === chosen) },
      html("span", { class: "place", text: "#" + each.rank }),
      html("span", { class: "words", text: each.text || "(nothing)", title: each.text }),
      html("span", { class: "sum" }, html("b", { text: "score " + digits(each.score, 3) }),
        document.createTextNode(` · log P ${digits(each.log_prob, 3)} · ${counted(each.length, "token")} · `),
        html("span", { class: moved > 0 ? "up" : moved < 0 ? "down" : "", text: said })));
    row.addEventListener("click", () => choose(each.node));
    return row;
  });
  redraw(at("ranks"), () => at("ranks").replaceChildren(lines, html("div", { class: "list" }, ...rows)));
  at("formula").textContent = formula(record);
}

function formula(record) {
  const { settings: { penalty, length_penalty: alpha }, hypotheses: [best], forced } = record;
  if (!best) return "";
  const n = best.length - forced, added = best.log_prob - record.forced_log_prob;
  const counted = forced ? "added tokens" : "tokens";
  const below = penalty === "gnmt" ? `((5 + ${n}) / 6)^${alpha}` : `${n}^${alpha}`;
  const rule = penalty === "gnmt" ? `log P ÷ ((5 + n) / 6)^α for n ${counted}` : `log P ÷ n^${alpha} for n ${counted}`;
  return `Score = ${rule}. The best: ${digits(added, 3)} ÷ ${below} = ${digits(best.score, 3)}.`;
}
