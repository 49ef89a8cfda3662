/** The page: what is asked for, what was answered, and which hypothesis is looked at. */

import { call, debounced, latest } from "./api.js";
import { Attention } from "./attention.js";
import { at, counted, digits, html, percent, redraw, rove, spoken } from "./dom.js";
import { Positions } from "./positions.js";
import { Tree, drawRanks } from "./tree.js";

// As pages of Gradio do: ?__theme=dark or light, whatever the system prefers.
const theme = new URLSearchParams(location.search).get("__theme");
if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;

const state = { models: [], model: null, record: null, asked: null, prefix: [], prefixTokens: [], alpha: null, beams: null };
const tree = new Tree(chooseNode, () => at("next").querySelector("button:not([disabled])")?.focus());
const attention = new Attention();
const positions = new Positions();

const search = latest(
  (asked) => call("search", [asked.model, asked.text, asked.tag, asked.beams, asked.alpha, asked.prefix]),
  showRecord,
  (error, asked) => { if (state.asked === asked) showError(error); },
);
const askAttention = latest(
  (asked, ids) => call("attention", [asked.model, asked.text, asked.tag, ids]),
  // Another token of the hypothesis may have been chosen meanwhile.
  (record, asked, ids, key) => { if (state.attended === key) attention.show(record, chosenNode().step - 1); },
  (error, asked, ids, key) => {
    if (state.attended !== key) return;
    state.attended = null;  // to be asked for again
    attention.clear(error.message);
  },
);
const askPositions = latest(
  (asked, tokens) => call("positions", [asked.model, tokens.length]),
  (answer, asked, tokens) => {
    if (state.shown === asked) positions.show(answer.positions, tokens, state.model.position_encoding);
  },
  (error, asked) => { if (state.shown === asked) positions.clear(error.message); },
);
const attendSoon = debounced(attend, 120);
const searchSoon = debounced(startSearch, 300);

function startSearch(then) {
  searchSoon.cancel();
  const model = state.model, text = at("source").value;
  at("count").textContent = `${[...text].length} of ${model.max_characters} characters`;
  if (!text.trim()) return showNothing();
  state.asked = { model: model.name, text, tag: at("tag").value, beams: state.beams, alpha: state.alpha,
    prefix: state.prefix, then: typeof then === "function" ? then : null };
  at("status").textContent = "Searching …";
  at("tree-box").setAttribute("aria-busy", "true");
  search(state.asked);
}

function showRecord(record, asked) {
  if (state.asked !== asked) return;
  state.record = record;
  state.shown = asked;
  at("error").hidden = true;
  at("tree-box").removeAttribute("aria-busy");
  document.body.classList.remove("empty", "stale");
  const { num_beams: beams, penalty, length_penalty: alpha } = record.settings, best = record.hypotheses[0];
  at("result").textContent = best ? best.text : "";
  const said = penalty === "gnmt" ? `α = ${alpha}` : `penalty n^${alpha}`;
  at("status").textContent = `${counted(beams, "beam")}, ${said}: ${record.nodes.length - 1} tokens `
    + `considered, ${record.hypotheses.length} finished, ${digits(record.seconds, 2)} s`;
  tree.show(record);
  chooseNode(chosenNode());
  askPositions(asked, record.source_tokens);
  asked.then?.();
}

function showError(error) {
  at("error").textContent = error.message;
  at("error").hidden = false;
  document.body.classList.add("stale");
  at("status").textContent = "";
  at("tree-box").removeAttribute("aria-busy");
}

function showNothing() {
  state.asked = null;
  document.body.classList.add("empty", "stale");
  at("error").hidden = true;
  at("tree-box").removeAttribute("aria-busy");
  at("result").textContent = "";
  at("status").textContent = "Type a text to translate.";
}

/** Looks at a node: its next tokens, and the attention of the best hypothesis that comes of it, or else up to it. */
function chooseNode(node) {
  drawNext(node);
  drawRanks(state.record, node.id, (id) => tree.select(id));
  attendSoon();
}

const chosenNode = () => state.record.nodes[tree.chosen];

function tokensUpTo(node) {
  return tree.path(node.id).slice(1).map((id) => state.record.nodes[id]);
}

function attend() {
  if (!state.record) return;
  const node = chosenNode();
  const ids = tree.hypothesisOf(node.id)?.token_ids ?? tokensUpTo(node).map((each) => each.token_id);
  const key = JSON.stringify([state.shown.model, state.shown.tag, state.shown.text, ids]);
  if (key === state.attended) return attention.mark(node.step - 1);
  state.attended = key;
  if (ids.length) askAttention(state.shown, ids, key);
}

function drawNext(node) {
  const before = tokensUpTo(node), said = spoken(before.map((each) => each.token).join("")) || "the start";
  at("next-title").textContent = node.ends ? "The end" : "Next token";
  at("node-said").replaceChildren(document.createTextNode("After "), html("b", { text: said }));
  const most = Math.max(...node.next.map(([, , probability]) => probability), 1e-9);
  const taken = new Map(tree.children[node.id].map((id) => [state.record.nodes[id].token_id, state.record.nodes[id].state]));
  const bars = node.next.map(([id, token, probability]) => {
    const ends = state.model.ends.includes(id), was = taken.get(id);
    const note = ends ? "ends it here" : was === "pruned" ? "was pruned" : was ? "is in the search" : "";
    const button = html("button", { type: "button", class: "bar", disabled: ends, "data-token": id,
      "aria-label": `${token}, ${percent(probability)}${note ? ", " + note : ""}` + (ends ? "" : ". Continue from here") },
      html("span", { class: "words", text: token }), html("span", { class: "measure" }, html("span", { class: "fill" })),
      html("span", { class: "number", text: percent(probability) }), html("span", { class: "note", text: note }));
    button.querySelector(".fill").style.width = `${(100 * probability) / most}%`;
    button.addEventListener("click", () => continueFrom([...before, { token_id: id, token }]));
    return html("li", {}, button);
  });
  if (!bars.length && !node.ends) {
    const button = html("button", { type: "button", class: "small", text: "Continue the search from here" });
    button.addEventListener("click", () => continueFrom(before));
    bars.push(html("li", {}, html("p", { class: "quiet", text: "It was not kept, so nothing was looked up after it." }), button));
  }
  if (node.ends) bars.push(html("li", { class: "quiet", text: node.state === "finished"
    ? "This translation is finished; nothing follows." : "It was finished, but others scored better." }));
  const hadFocus = at("next").contains(document.activeElement);
  redraw(at("next"), () => at("next").replaceChildren(...bars));
  at("next-hint").hidden = !node.next.length;
  const buttons = [...at("next").querySelectorAll("button:not([disabled])")];
  rove(buttons, Math.max(0, buttons.indexOf(document.activeElement)));
  if (hadFocus && !at("next").contains(document.activeElement)) tree.focus();
}

/** Searches once more, for translations that begin with these tokens. */
function continueFrom(tokens) {
  state.prefix = tokens.map((each) => each.token_id);
  state.prefixTokens = tokens.map((each) => each.token);
  // As it was asked for what is shown, whatever has been typed since.
  at("source").value = state.shown.text;
  at("tag").value = state.shown.tag;
  at("begins").hidden = false;
  at("prefix").textContent = spoken(state.prefixTokens.join(""));
  startSearch(() => {  // unless the reader has gone elsewhere meanwhile
    const active = document.activeElement;
    if (!active || active === document.body || active.closest("#next, #tree")) tree.focus();
  });
}

function searchFreely() {
  state.prefix = [];
  state.prefixTokens = [];
  at("begins").hidden = true;
}

/** Shows nothing of a search any more: its tokens mean something else to another model. */
function forget() {
  state.record = state.shown = state.attended = null;
  for (const part of [tree, attention, positions]) part.clear();
  for (const id of ["result", "node-said", "next", "ranks", "formula"]) at(id).replaceChildren();
  at("next-title").textContent = "Next token";
  at("next-hint").hidden = true;
}

function chooseModel(model, example) {
  forget();
  state.model = model;
  const labels = model.tags.map((tag) => [tag, languageOf(tag)]).sort((one, other) => one[1].localeCompare(other[1]));
  at("tag").replaceChildren(...(labels.length ? [] : [html("option", { value: "", text: "" })]),
    ...labels.map(([value, text]) => html("option", { value, text })));
  at("tag-field").hidden = labels.length === 0;
  at("beams").max = model.max_beams;
  at("alpha").max = model.max_penalty;
  at("examples").replaceChildren(...model.examples.map((each) => {
    const button = html("button", { type: "button", class: "chip", text: each.text, title: each.text });
    button.addEventListener("click", () => { useExample(each); startSearch(); });
    return button;
  }));
  useOwnSettings();
  useExample(example ?? { text: "", tag: labels[0]?.[0] ?? "" });
  startSearch();
}

function useExample({ text, tag }) {
  searchFreely();
  at("source").value = text;
  at("tag").value = tag;
}

function useOwnSettings() {
  [state.beams, state.alpha] = [null, null];
  at("beams").value = state.model.num_beams;
  at("alpha").value = state.model.length_penalty ?? 0;
  saySettings();
}

function saySettings() {
  at("beams-said").textContent = at("beams").value;
  at("alpha-said").textContent = state.alpha?.toFixed(1) ?? state.model.length_penalty ?? "none";
  at("own").disabled = state.beams === null && state.alpha === null;
}

/** Languages that browsers have no name for. */
const OTHERS = { ady: "Adyghe" };

/** "<fre>" is French, "<2de>" into German; other tags are called what they are. */
function languageOf(tag) {
  const [, into, code] = /^<(2?)([a-z]{2,3}(?:-\w{2,8})?)>$/.exec(tag) ?? [];
  if (!code) return tag;
  try {
    const name = new Intl.DisplayNames(["en"], { type: "language", fallback: "none" }).of(code);
    return name ?? OTHERS[code] ? (into ? "into " : "") + (name ?? OTHERS[code]) : tag;
  } catch {
    return tag;
  }
}

at("source").addEventListener("input", () => { searchFreely(); searchSoon(); });
at("tag").addEventListener("change", () => {
  const isExample = state.model.examples.some((each) => each.text === at("source").value);
  const example = state.model.examples.find((each) => each.tag === at("tag").value);
  if (isExample && example) useExample(example);
  searchFreely();
  startSearch();
});
at("model").addEventListener("change", () => {
  const model = state.models[Number(at("model").value)];
  chooseModel(model, model.examples[0]);
});
at("beams").addEventListener("input", () => { state.beams = Number(at("beams").value); saySettings(); searchSoon(); });
at("alpha").addEventListener("input", () => { state.alpha = Number(at("alpha").value); saySettings(); searchSoon(); });
at("own").addEventListener("click", () => { useOwnSettings(); startSearch(); at("beams").focus(); });
at("free").addEventListener("click", () => { searchFreely(); startSearch(); at("source").focus(); });
at("next").addEventListener("keydown", (event) => {
  const buttons = [...at("next").querySelectorAll("button:not([disabled])")], index = buttons.indexOf(event.target);
  if (event.key === "Escape") { event.preventDefault(); tree.focus(); return; }
  const to = { ArrowDown: index + 1, ArrowUp: index - 1, Home: 0, End: buttons.length - 1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  if (buttons[to]) { rove(buttons, to); buttons[to].focus(); }
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { attention.draw(); positions.draw(); });

try {
  const answer = await fetch("page/models.json");
  state.models = (await answer.json()).models;
  at("model").replaceChildren(...state.models.map((model, index) => html("option", { value: index,
    text: `${model.title} (${(model.parameters / 1e6).toFixed(1)}M)` })));
  chooseModel(state.models[0], state.models[0].examples[0]);
} catch {
  showError(new Error("The list of models could not be loaded. Is the server still running?"));
}
