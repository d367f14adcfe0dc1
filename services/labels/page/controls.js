// Buttons and keys: both name the same actions.

import { dialogIsOpen } from "./dialogs.js";
import { byId, fill } from "./elements.js";
import { isTyped, keyOf, shownKey } from "./keys.js";
import { recall, remember } from "./settings.js";

const WITHOUT_GROUP = new Set(["help", "previous", "undo"]);
// A key held down moves on and on, but decides once.
const REPEATED = new Set(["left", "right", "up", "down"]);

/** Connect buttons (`clicks` by element id) and keys (`actions` by name). */
export function bindControls(keys, clicks, actions, { hasGroup, input, escape }) {
  for (const [id, act] of Object.entries(clicks)) byId(id).addEventListener("click", act);
  byId("blur").addEventListener("change", (event) => remember("blur", event.target.checked));
  document.addEventListener("pointerdown", input);
  document.addEventListener("keydown", (event) => {
    input();
    if (dialogIsOpen() || isTyped(event)) return;
    if (event.key === "Escape") {
      escape();
      return;
    }
    const action = keys.action(keyOf(event));
    if (!action) return;
    event.preventDefault();
    if (event.repeat && !REPEATED.has(action)) return;
    if (hasGroup() || WITHOUT_GROUP.has(action)) actions[action]();
  });
}

/** What the buttons say now. */
export function drawControls(keys, desk, zoomed) {
  const key = (action) => shownKey(keys.of(action)[0]);
  fill(byId("previous"), "back", desk?.review ? "Earlier" : "Previous", key("previous"));
  fill(byId("undo"), "undo", "Undo", key("undo"));
  fill(byId("skip"), "skip", desk?.review ? "Return" : "Skip", desk?.review ? "Esc" : key("skip"));
  fill(byId("note"), "note", "Note", key("note"));
  fill(byId("zoom"), "zoom", zoomed ? "All" : "Zoom", key("zoom"));
  fill(byId("open-help"), "help", "Keys", key("help"));
  fill(byId("open-guidelines"), "book", "Guidelines", key("guidelines"));
  byId("open-guidelines").hidden = !desk;
  byId("blur").checked = recall("blur", true);
  drawSubmit(desk, key("submit"));
}

function drawSubmit(desk, key) {
  const total = desk?.group.images.length ?? 0;
  const left = desk?.missing().length ?? 0;
  const done = `${total - left} of ${total} labelled`;
  const ready = desk?.review ? "Save and return" : "Submit";
  const submit = byId("submit");
  fill(submit, "sent", left ? done : ready, key);
  submit.dataset.ready = left ? "" : "yes";
  submit.setAttribute("aria-label", left ? `Submit: ${done}` : ready);
}
