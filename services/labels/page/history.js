// The newest groups that were submitted from this browser, so that they can be looked at again.

import { LeasedGroup } from "./supply.js";

const KEPT = 20;
const PICTURED = 4; // groups whose images stay in memory

/**
 * Records {assignmentId, annotatorId, at, assignment, marks, labels}; `labels` are {id, revision}
 * by image id, once the service has told them.
 */
export class History {
  #groups = new Map();

  constructor(store, annotatorId) {
    this.store = store;
    this.annotatorId = annotatorId;
  }

  /** Remember a group as it was submitted. */
  async add(group, marks) {
    this.#picture(group);
    const { assignment, id: assignmentId } = group;
    const { annotatorId } = this;
    const record = { assignmentId, annotatorId, at: Date.now(), assignment, marks, labels: {} };
    await this.store.put("history", record);
    const old = (await this.#mine()).slice(0, -KEPT);
    await Promise.all(old.map((record) => this.forget(record.assignmentId)));
  }

  /** The record before `assignmentId`, or the newest where that is null; undefined at the end. */
  async before(assignmentId) {
    const records = await this.#mine();
    const at = records.findIndex((record) => record.assignmentId === assignmentId);
    return at < 0 ? records.at(-1) : records[at - 1];
  }

  /** Its group with pictures; those of the newest groups are still decoded. */
  group(record) {
    const group = this.#groups.get(record.assignmentId) ?? new LeasedGroup(record.assignment, 0);
    this.#picture(group);
    return group;
  }

  async #mine() {
    const all = await this.store.all("history");
    return all
      .filter((record) => record.annotatorId === this.annotatorId)
      .sort((a, b) => a.at - b.at);
  }

  /** The service took the labels: their ids and revisions are what an amendment needs. */
  accepted(assignmentId, body) {
    return this.#edit(assignmentId, (record) => {
      for (const { id, image_id: imageId, revision } of body?.labels ?? []) {
        record.labels[imageId] = { id, revision };
      }
    });
  }

  amended(assignmentId, imageId, { id, revision }) {
    return this.#edit(assignmentId, (record) => {
      record.labels[imageId] = { id, revision };
    });
  }

  remark(assignmentId, marks) {
    return this.#edit(assignmentId, (record) => {
      record.marks = marks;
    });
  }

  forget(assignmentId) {
    this.#groups.delete(assignmentId);
    return this.store.remove("history", assignmentId);
  }

  #edit(assignmentId, change) {
    return this.store.change("history", assignmentId, change);
  }

  #picture(group) {
    this.#groups.delete(group.id);
    this.#groups.set(group.id, group);
    if (this.#groups.size > PICTURED) this.#groups.delete(this.#groups.keys().next().value);
  }
}
