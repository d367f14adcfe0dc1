// Guidelines, the reason of a skip, a note, the keys, and answers that were refused.

import { byId, button, make } from "./elements.js";
import { ACTIONS, keyOf, shownKey } from "./keys.js";

const REASONS = {
  "images-broken": "Images are missing or broken",
  "prompt-unclear": "The prompt makes no sense to me",
  offensive: "I do not want to look at this",
  "cannot-judge": "I cannot judge this",
};

for (const closing of document.querySelectorAll("[data-close]")) {
  closing.addEventListener("click", () => closing.closest("dialog").close());
}

/** Whether a dialog has the page. */
export function dialogIsOpen() {
  return Boolean(document.querySelector("dialog[open]"));
}

function open(id, closed = () => null) {
  const dialog = byId(id);
  dialog.addEventListener("close", closed, { once: true });
  dialog.showModal();
  return dialog;
}

/** The guidelines of a question; `closed` once they are read. */
export function showGuidelines(version, text, isNew, closed) {
  const title = isNew && version > 1 ? "The guidelines have changed" : "Guidelines";
  byId("guidelines-title").textContent = `${title} (version ${version})`;
  byId("guidelines-text").textContent = text || "There are none: your own taste decides.";
  open("guidelines", closed);
}

/** Ask why; `chosen` gets the reason, nothing happens on Escape. */
export function askReason(chosen, closed) {
  const dialog = byId("skipping");
  const entries = Object.entries(REASONS);
  const pick = (reason) => {
    dialog.close();
    chosen(reason);
  };
  byId("skip-reasons").replaceChildren(
    ...entries.map(([reason, text], index) => {
      const made = button(text, () => pick(reason));
      made.append(make("kbd", { "aria-hidden": "true" }, String(index + 1)));
      return made;
    }),
  );
  dialog.onkeydown = (event) => {
    const entry = entries[Number(event.key) - 1];
    if (entry && !event.repeat) pick(entry[0]);
  };
  open("skipping", closed);
}

/** Edit the note of an image; `saved` gets the text. */
export function editNote(number, text, saved, closed) {
  const field = byId("note-text");
  byId("noting-title").textContent = `Note on image ${number}`;
  field.value = text;
  const save = () => {
    byId("noting").close();
    saved(field.value.trim());
  };
  byId("note-save").onclick = save;
  field.onkeydown = (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) save();
  };
  open("noting", closed);
  field.focus();
}

/** Keys (to be changed) and settings. `who` says who is signed in. */
export function showHelp(keys, who, changed, closed) {
  const message = (text) => {
    byId("key-message").textContent = text;
  };
  const draw = () => {
    byId("key-list").replaceChildren(
      ...Object.entries(ACTIONS).map(([action, { name }]) => {
        const buttons = keys
          .of(action)
          .map((_, index) => keyButton(keys, action, index, message, draw));
        return make("div", {}, make("dt", {}, name), make("dd", {}, ...buttons));
      }),
    );
    changed();
  };
  byId("reset-keys").onclick = () => {
    keys.reset();
    message("The original keys are back.");
    draw();
  };
  message("");
  byId("who").textContent = who;
  draw();
  open("help", closed);
}

function keyButton(keys, action, index, message, draw) {
  const { name } = ACTIONS[action];
  const made = button(shownKey(keys.of(action)[index]), () => {
    made.textContent = "Press a key";
    message(`Press the new key for ${name}; Escape leaves it.`);
  });
  made.setAttribute("aria-label", `${name}: ${shownKey(keys.of(action)[index])}. Change`);
  made.addEventListener("blur", () => {
    if (made.isConnected) made.textContent = shownKey(keys.of(action)[index]);
  });
  made.addEventListener("keydown", (event) => {
    if (made.textContent !== "Press a key" || event.repeat) return;
    if (event.key === "Tab") return;
    event.preventDefault();
    event.stopPropagation();
    const key = keyOf(event);
    const fault = key === "Escape" ? "Left as it was." : keys.rebind(action, index, key);
    message(fault ?? `${name} is ${shownKey(key)} now.`);
    draw();
    const row = Object.keys(ACTIONS).indexOf(action);
    byId("key-list").children[row].querySelectorAll("button")[index].focus();
  });
  return made;
}

/** Answers the service would not take; `again(entry)` and `discard(entry)` resolve when done. */
export function showKept(entries, again, discard, closed) {
  const list = byId("kept-list");
  const drop = (row) => {
    row.remove();
    if (!list.children.length) byId("kept").close();
  };
  list.replaceChildren(
    ...entries.map((entry) => {
      const row = make("div", { class: "kept" });
      const verdicts = (entry.labels ?? [entry]).map((label) => label.value).join(", ");
      const act = (does) => async () => {
        await does(entry);
        drop(row);
      };
      row.append(
        make("p", { dir: "auto" }, entry.prompt ?? ""),
        make("p", { class: "hint" }, `${verdicts} - ${entry.problem.detail}`),
        button("Try again", act(again)),
        button("Discard", act(discard)),
      );
      return row;
    }),
  );
  open("kept", closed);
}
