/** Small helpers for building elements. Text goes in as text, never as HTML: it comes from other people's workflows. */

const SVG = "http://www.w3.org/2000/svg";

/** @typedef {Record<string, string|number|boolean|((event: any) => unknown)>} Attributes */

/**
 * Build an element.
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag Name of the element.
 * @param {Attributes} [attributes] Attributes; "onclick" and the like are listeners, `text` is the content.
 * @param {...(Node|string)} children What it holds.
 * @returns {HTMLElementTagNameMap[T]}
 */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/**
 * Build an SVG element; as `el`.
 * @template {keyof SVGElementTagNameMap} T
 * @param {T} tag
 * @param {Attributes} [attributes]
 * @param {...(Node|string)} children
 * @returns {SVGElementTagNameMap[T]}
 */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/**
 * @template {Element} E
 * @param {E} element
 * @param {Attributes} attributes
 * @param {(Node|string)[]} children
 * @returns {E}
 */
function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice("on".length), value);
    else if (name === "text") element.textContent = String(value);
    else element.setAttribute(name, String(value));
  }
  element.append(...children);
  return element;
}

/**
 * Set an element's text if it differs.
 * @param {Element} element
 * @param {string} text
 */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * Set (or, with null, remove) an attribute if it differs.
 * @param {Element} element
 * @param {string} name
 * @param {string|number|boolean|null} value
 */
export function setAttribute(element, name, value) {
  if (value === null) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
  } else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, String(value));
}

/**
 * Show an element, or hide it. (SVG elements have no property `hidden`, but obey the attribute by our CSS.)
 * @param {Element} element
 * @param {boolean} visible
 */
export function show(element, visible) {
  setAttribute(element, "hidden", visible ? null : "");
}

/**
 * A button with a text.
 * @param {string} text
 * @param {(event: MouseEvent) => unknown} onclick
 * @param {string} [title] Its tooltip.
 * @returns {HTMLButtonElement}
 */
export function button(text, onclick, title = "") {
  return el("button", { type: "button", class: "nsd-button", text, title, onclick });
}

/**
 * The element that an event happened in, or the nearest one around it that a selector matches.
 * @param {Event} event
 * @param {string} selector
 * @returns {HTMLElement|null}
 */
export function closest(event, selector) {
  return event.target instanceof Element ? event.target.closest(selector) : null;
}

/**
 * Add a stylesheet to the page.
 * @param {URL} url
 */
export function addStylesheet(url) {
  document.head.append(el("link", { rel: "stylesheet", href: url.href }));
}
