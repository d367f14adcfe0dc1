// Hotkeys: an action has one or two keys, a key has one action, and a person may change both.

import { forget, recall, remember } from "./settings.js";

/** Every action: what the help calls it and the keys it starts with. */
export const ACTIONS = {
  like: { name: "Like", keys: ["f", "1"] },
  dislike: { name: "Dislike", keys: ["d", "0"] },
  unsure: { name: "Unsure", keys: ["u"] },
  submit: { name: "Submit, next group", keys: ["Enter"] },
  undo: { name: "Undo", keys: ["z"] },
  previous: { name: "Previous group", keys: ["Backspace"] },
  skip: { name: "Skip group", keys: ["s"] },
  note: { name: "Note on this image", keys: ["n"] },
  zoom: { name: "Zoom", keys: ["Space"] },
  reveal: { name: "Reveal blurred images", keys: ["v"] },
  guidelines: { name: "Guidelines", keys: ["g"] },
  help: { name: "Help", keys: ["?"] },
  left: { name: "Image to the left", keys: ["ArrowLeft"] },
  right: { name: "Image to the right", keys: ["ArrowRight"] },
  up: { name: "Image above", keys: ["ArrowUp"] },
  down: { name: "Image below", keys: ["ArrowDown"] },
};

const SHOWN = {
  ArrowLeft: "Left",
  ArrowRight: "Right",
  ArrowUp: "Up",
  ArrowDown: "Down",
  Backspace: "Backspace",
};
const RESERVED = new Set(["Tab", "Escape", "Shift", "Control", "Alt", "Meta", "CapsLock", "Dead"]);

/** The name of the key of an event: lower case for letters, `Space` for the bar. */
export function keyOf(event) {
  if (event.key === " ") return "Space";
  return event.key.length === 1 ? event.key.toLowerCase() : event.key;
}

/** A key as people read it. */
export function shownKey(key) {
  return SHOWN[key] ?? (key.length === 1 ? key.toUpperCase() : key);
}

/** The bindings of this browser. */
export class Keys {
  #bound;

  constructor() {
    this.#bound = sound(recall("keys", null)) ?? defaults();
  }

  /** The keys of an action. */
  of(action) {
    return this.#bound[action];
  }

  /** The action of a key, or undefined. */
  action(key) {
    return Object.keys(this.#bound).find((action) => this.#bound[action].includes(key));
  }

  /** Give `action` the key instead of its number `index`; an error text where that cannot be. */
  rebind(action, index, key) {
    if (RESERVED.has(key)) return `${shownKey(key)} belongs to the browser; choose another key.`;
    const owner = this.action(key);
    if (owner && owner !== action) {
      return `${shownKey(key)} is ${ACTIONS[owner].name} already; change that one first.`;
    }
    if (owner === action) return null;
    this.#bound[action][index] = key;
    remember("keys", this.#bound);
    return null;
  }

  /** Back to the keys of the design. */
  reset() {
    this.#bound = defaults();
    forget("keys");
  }
}

function defaults() {
  return Object.fromEntries(Object.entries(ACTIONS).map(([name, { keys }]) => [name, [...keys]]));
}

/** The stored bindings where they name every action and no key twice; else null. */
function sound(stored) {
  if (!stored) return null;
  const names = Object.keys(ACTIONS);
  const whole = names.every(
    (name) => Array.isArray(stored[name]) && stored[name].length === ACTIONS[name].keys.length,
  );
  if (!whole) return null;
  const keys = names.flatMap((name) => stored[name]);
  const named = keys.every((key) => typeof key === "string");
  const distinct = new Set(keys).size === keys.length;
  return named && distinct ? Object.fromEntries(names.map((name) => [name, stored[name]])) : null;
}

/** Whether a key belongs to the element it was typed in: fields, and Enter or Space on controls. */
export function isTyped(event) {
  if (event.isComposing || event.ctrlKey || event.metaKey || event.altKey) return true;
  const target = event.target;
  if (target.closest?.("input, textarea, select, [contenteditable]")) return true;
  const pressing = event.key === "Enter" || event.key === " ";
  return pressing && Boolean(target.closest?.("button, a, summary"));
}
