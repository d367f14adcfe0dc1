// What this browser remembers of a person's taste; a browser that refuses storage just forgets.

const PREFIX = "tdmr1-label:";

/** The value under `name`, or `fallback` where nothing (or nonsense) is stored. */
export function recall(name, fallback) {
  try {
    return JSON.parse(localStorage.getItem(PREFIX + name)) ?? fallback;
  } catch {
    return fallback;
  }
}

export function remember(name, value) {
  try {
    localStorage.setItem(PREFIX + name, JSON.stringify(value));
  } catch {
    // private windows may refuse; the page works without
  }
}

export function forget(name) {
  try {
    localStorage.removeItem(PREFIX + name);
  } catch {
    // as above
  }
}
