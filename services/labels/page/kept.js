// Answers that the service refused: kept in this browser until the person decides.

import { showKept } from "./dialogs.js";

/** Says what is left of them, and offers to look. */
export class Kept {
  #store;
  #queue;
  #view;

  constructor(store, queue, view) {
    this.#store = store;
    this.#queue = queue;
    this.#view = view;
  }

  async offer() {
    const all = await this.#store.all("kept");
    const entries = all.filter((entry) => entry.annotatorId === this.#queue.annotatorId);
    if (!entries.length) {
      this.#view.unnotice("kept");
      return;
    }
    const text =
      entries.length === 1
        ? "An answer of yours was not accepted. It is kept in this browser."
        : `${entries.length} answers of yours were not accepted. They are kept in this browser.`;
    this.#view.notice("kept", text, [["Look at them", () => this.#look(entries)]]);
  }

  #look(entries) {
    const discard = (entry) => this.#store.remove("kept", entry.id);
    const again = async (entry) => {
      const { id, problem: _, ...rest } = entry;
      await this.#queue.add(rest);
      await this.#store.remove("kept", id);
    };
    showKept(entries, again, discard, () => this.offer());
  }
}
