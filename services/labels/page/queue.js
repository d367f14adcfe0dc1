// The offline queue: what a person decided is on disk before the page moves on, and is sent in
// order, each entry under the idempotency key it was born with, until the service has answered.

import { Offline, Problem, call, newKey, pauseMs } from "./api.js";

/**
 * Entries {id, kind, key, annotatorId, assignmentId, prompt, ...}: `submit` {token, labels}, `skip`
 * {reason}, `amend` {imageId, value, note}. Only entries of the person signed in are sent.
 */
export class Queue {
  waiting = 0;
  trouble = null; // null, "offline", "service" or "signed-out": why the first entry still waits
  #store;
  #events;
  #flushing = null;
  #again = false;
  #attempt = 0;
  #timer = 0;

  /** `events`: changed(queue), sent(entry, body), refused(entry, problem), signedOut(). */
  constructor(store, annotatorId, events) {
    this.#store = store;
    this.annotatorId = annotatorId;
    this.#events = events;
  }

  /** Resolves once the entry is stored; sending goes on behind. */
  async add(entry) {
    await this.#store.put("queue", { ...entry, key: newKey(), annotatorId: this.annotatorId });
    await this.count();
    this.flush();
  }

  /** Send what waits; one flush at a time in this tab, and in all tabs of the browser. */
  flush() {
    clearTimeout(this.#timer);
    if (this.#flushing) {
      this.#again = true;
      return this.#flushing;
    }
    const locked = () => this.#sendAll();
    this.#flushing = (navigator.locks ? navigator.locks.request("tdmr1-queue", locked) : locked())
      .finally(() => {
        this.#flushing = null;
        if (this.#again) {
          this.#again = false;
          this.flush();
        }
      });
    return this.#flushing;
  }

  /** Own entries, oldest first. */
  async entries() {
    const all = await this.#store.all("queue");
    return all.filter((entry) => entry.annotatorId === this.annotatorId);
  }

  /** Look how many wait, and tell. */
  async count() {
    this.waiting = (await this.entries()).length;
    this.#events.changed(this);
  }

  async #sendAll() {
    for (;;) {
      const [entry] = await this.entries();
      if (!entry) break;
      try {
        const body = await this.#send(entry);
        await this.#events.sent(entry, body);
      } catch (error) {
        if (!(await this.#settle(entry, error))) return;
      }
      this.#attempt = 0;
      this.trouble = null;
      await this.#store.remove("queue", entry.id);
      await this.count();
    }
    this.trouble = null;
    await this.count();
  }

  /** True where the entry is finished; false where it stays first in the queue. */
  async #settle(entry, error) {
    if (error instanceof Problem && error.signedOut) {
      this.trouble = "signed-out";
      await this.count();
      this.#events.signedOut();
      return false;
    }
    if (error instanceof Offline || (error instanceof Problem && error.passing)) {
      this.trouble = error instanceof Offline ? "offline" : "service";
      this.#attempt += 1;
      await this.count();
      this.#timer = setTimeout(() => this.flush(), pauseMs(this.#attempt, error));
      return false;
    }
    if (!(error instanceof Problem)) throw error;
    await this.#store.put("kept", { ...without(entry, "id"), problem: asRecord(error) });
    await this.#events.refused(entry, error);
    return true;
  }

  async #send(entry) {
    if (entry.kind === "submit") {
      const body = { lease_token: entry.token, labels: entry.labels, final: true };
      const path = `/assignments/${encodeURIComponent(entry.assignmentId)}/labels`;
      return (await call("POST", path, { body, key: entry.key })).body;
    }
    if (entry.kind === "skip") return this.#skip(entry);
    return this.#amend(entry);
  }

  async #skip(entry) {
    const reason = encodeURIComponent(entry.reason);
    const path = `/assignments/${encodeURIComponent(entry.assignmentId)}?reason=${reason}`;
    try {
      return (await call("DELETE", path, { key: entry.key })).body;
    } catch (error) {
      const over = error instanceof Problem && [404, 409, 410].includes(error.status);
      if (over) return null; // the lease had ended: the group is others' already
      throw error;
    }
  }

  async #amend(entry) {
    const record = await this.#store.get("history", entry.assignmentId);
    const label = record?.labels?.[entry.imageId];
    if (!label) {
      throw new Problem(409, { code: "label-missing", detail: "The label was never accepted." });
    }
    const path = `/labels/${encodeURIComponent(label.id)}`;
    const body = { value: entry.value, note: entry.note };
    const patch = async (revision) =>
      (await call("PATCH", path, { body, ifMatch: `"r${revision}"` })).body;
    try {
      return await patch(label.revision);
    } catch (error) {
      if (!(error instanceof Problem) || error.status !== 412) throw error;
    }
    // Somebody, perhaps our own lost answer, was there first: look, and say it once more.
    const now = (await call("GET", path)).body;
    const same = now.value === entry.value && (now.note ?? null) === (entry.note ?? null);
    return same ? now : patch(now.revision);
  }
}

function without(record, field) {
  const { [field]: _, ...rest } = record;
  return rest;
}

function asRecord(problem) {
  return { status: problem.status, code: problem.code, detail: problem.message };
}
