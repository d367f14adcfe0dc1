// Making elements without markup: text is only ever text, whatever it looks like.

const SVG = "http://www.w3.org/2000/svg";

/** The element of that id; an error where the page has none. */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no element #${id}`);
  return found;
}

/** An element with attributes and children; strings become text nodes. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** One of the page's own icons; the text beside it says the same. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", "icon");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

/** A button; `act` gets the click. */
export function button(text, act, { iconName, className, ...attributes } = {}) {
  const element = make("button", { type: "button", class: className, ...attributes });
  if (iconName) element.append(icon(iconName));
  element.append(make("span", {}, text));
  element.addEventListener("click", act);
  return element;
}

/** Fill a control: icon, text, and the key that does the same. */
export function fill(element, iconName, text, key) {
  element.replaceChildren(icon(iconName), make("span", {}, text));
  if (key) element.append(make("kbd", { "aria-hidden": "true" }, key));
}
