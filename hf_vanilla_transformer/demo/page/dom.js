/** Small helpers. Text reaches the page only as text: by textContent and by attributes, never as markup. */

const SVG = "http://www.w3.org/2000/svg";

export const at = (id) => document.getElementById(id);

/** An HTML element with properties, attributes ("aria-label", "data-id", ...) and children. */
export function html(name, properties = {}, ...children) {
  return fill(document.createElement(name), properties, children);
}

/** The same of SVG. */
export function svg(name, properties = {}, ...children) {
  return fill(document.createElementNS(SVG, name), properties, children);
}

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "text") element.textContent = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

/** A number of few digits, with a real minus. */
export function digits(value, count = 2) {
  const text = Math.abs(value).toFixed(count);
  return (value < 0 && Number(text) !== 0 ? "−" : "") + text;
}

export function percent(value) {
  if (value > 0 && value < 0.0005) return "<0.1 %";
  return (100 * value).toFixed(value < 0.0995 ? 1 : 0) + " %";
}

/** A token as people read it in running text: its space is one. */
export const spoken = (token) => token.replaceAll("·", " ").trim() || token;

export const clamp = (value, least, most) => Math.max(least, Math.min(value, most));

/** Cuts a long token for a narrow place. */
export function shorten(text, most) {
  const characters = [...text];
  return characters.length > most ? characters.slice(0, most - 1).join("") + "…" : text;
}

/** A colour of the style sheet as numbers, for what is painted on a canvas. */
export function colour(name) {
  const probe = at("probe");
  probe.style.color = `var(${name})`;
  return getComputedStyle(probe).color.match(/[\d.]+/g).slice(0, 3).map(Number);
}

/** Between two colours. */
export const mixed = (from, to, part) => `rgb(${from.map((each, index) => Math.round(each + part * (to[index] - each)))})`;

/** Rows of a toolbar or group of which one at a time is in the order of the Tab key. */
export function rove(elements, chosen) {
  elements.forEach((each, index) => each.setAttribute("tabindex", index === chosen ? "0" : "-1"));
}

/** Draws the content of an element anew; what had the focus in it keeps it, if it is still there. */
export function redraw(container, draw) {
  const active = document.activeElement, had = container.contains(active) ? { ...active.dataset } : null;
  draw();
  if (!had) return;
  const isSame = (each) => Object.entries(had).every(([name, value]) => each.dataset[name] === value);
  [...container.querySelectorAll("button, [tabindex]")].find(isSame)?.focus({ preventScroll: true });
}

export const counted = (count, thing) => `${count} ${thing}${count === 1 ? "" : "s"}`;

/** Takes all out of a picture, and what was said of it. */
export function blank(picture) {
  picture.replaceChildren();
  for (const name of ["width", "height", "viewBox", "role", "aria-label"]) picture.removeAttribute(name);
}
