// What a person does to the images in front of them: verdicts, notes, moves, zoom.

import { editNote } from "./dialogs.js";
import { shownKey } from "./keys.js";
import { recall } from "./settings.js";

/** Works on one desk at a time; `changed(desk)` hears of every decision. */
export class Judging {
  desk = null;
  busy = false; // a submit is under way: nothing may change
  blurred = false;
  #view;
  #keys;
  #changed;

  constructor(view, keys, changed) {
    this.#view = view;
    this.#keys = keys;
    this.#changed = changed;
  }

  /** Put a desk on screen. */
  present(desk) {
    this.desk = desk;
    this.#view.show(desk);
    const warning = desk.group.assignment.group.content_warning;
    this.blurred = Boolean(warning) && !desk.review && recall("blur", true);
    this.#view.warn(this.blurred ? warning : null, shownKey(this.#keys.of("reveal")[0]));
  }

  /** Nothing on screen. */
  clear() {
    this.desk = null;
  }

  /** A verdict by key: mark it and go on to what is left. */
  decide(value) {
    const { desk } = this;
    if (!this.#mayJudge()) return;
    const { index } = desk;
    if (!desk.image.broken) {
      desk.mark(index, value);
      this.#drawn(index);
    }
    const said = this.#view.describe(index);
    const next = desk.review ? index : desk.nextMissing(index);
    if (next < 0) {
      const key = shownKey(this.#keys.of("submit")[0]);
      this.#view.announce(`${said}. All labelled: ${key} submits.`);
      return;
    }
    this.go(next);
    this.#view.announce(next === index ? said : `${said}. ${this.#view.describe(next)}`);
  }

  /** A verdict by pointer; pressed again it is taken away. */
  click(index, value, event) {
    if (!this.#mayJudge()) return;
    this.desk.index = index;
    if (this.#view.single) {
      this.decide(value);
      return;
    }
    const again = this.desk.at(index)?.value === value && !this.desk.review;
    this.desk.mark(index, again ? null : value);
    this.#drawn(index);
    this.#view.announce(this.#view.describe(index));
    this.#view.mark(index);
    const byPointer = event.detail > 0;
    if (byPointer) this.#view.focus(index); // so that Enter submits instead of pressing again
  }

  #mayJudge() {
    if (!this.desk || this.busy) return false;
    if (!this.blurred) return true;
    this.#view.announce("The images are blurred. Show them first, or skip the group.");
    return false;
  }

  #drawn(index) {
    this.#view.refresh(index);
    this.#changed(this.desk);
  }

  /** Take back the last decision on this desk; false where there is none. */
  undo() {
    const index = this.busy ? null : (this.desk?.undo() ?? null);
    if (index === null) return false;
    this.#drawn(index);
    this.go(index);
    this.#view.announce(`Undone. ${this.#view.describe(index)}`);
    return true;
  }

  note() {
    if (!this.#mayJudge()) return;
    const { desk } = this;
    const { index } = desk;
    const save = (text) => {
      desk.note(index, text);
      this.#drawn(index);
      this.#view.announce(text ? "Note saved." : "No note.");
    };
    editNote(index + 1, desk.at(index)?.note ?? "", save, () => this.refocus());
  }

  /** Focus image number `index`. */
  go(index) {
    this.desk.index = index;
    this.#view.focus(index);
  }

  /** The browser's focus has moved there. */
  focused(index) {
    if (!this.desk) return;
    this.desk.index = index;
    this.#view.mark(index);
  }

  refocus() {
    if (this.desk) this.#view.focus(this.desk.index);
  }

  move(step) {
    const last = this.desk.group.images.length - 1;
    const index = Math.min(last, Math.max(0, this.desk.index + step));
    if (index === this.desk.index) return;
    this.go(index);
    this.#view.announce(this.#view.describe(index));
  }

  zoom() {
    this.#view.zoom(!this.#view.zoomed);
    this.#changed(this.desk);
    this.#view.announce(this.#view.zoomed ? "Zoomed in: one image." : "All images.");
    this.refocus();
  }

  /** Load an image once more. */
  retry(index) {
    this.desk.group.images[index].load();
    this.#view.reload(index);
  }

  reveal() {
    if (!this.blurred) return;
    this.blurred = false;
    this.#view.warn(null);
    this.refocus();
    this.#view.announce("Images shown.");
  }
}
