/** Small helpers for building elements. Text goes in as text, never as HTML: it comes from other people's workflows. */

const SVG = "http://www.w3.org/2000/svg";

/**
 * Build an element.
 * @param {string} tag Name of the element.
 * @param {object} [attributes] Attributes; "onclick" and the like are listeners, `text` is the content.
 * @param {...Node} children What it holds.
 * @returns {HTMLElement}
 */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** Build an SVG element; as `el`. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "text") element.textContent = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** Set an element's text if it differs. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Set (or, with null, remove) an attribute if it differs. */
export function setAttribute(element, name, value) {
  if (value === null) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
  } else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

/** Show an element, or hide it. (SVG elements have no property `hidden`, but obey the attribute by our CSS.) */
export function show(element, visible) {
  setAttribute(element, "hidden", visible ? null : "");
}

/** A button with a text; its clicks do not reach the canvas. */
export function button(text, onclick, title = "") {
  return el("button", { type: "button", class: "nsd-button", text, title, onclick });
}

/** A score in few digits: three significant ones where it matters. */
export function score(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  return value.toFixed(size >= 100 ? 1 : size >= 10 ? 2 : 3);
}

/** A time in words: "8 s", "3 min 05 s", "2 h 10 min". */
export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes} min ${String(whole % 60).padStart(2, "0")} s`;
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}
