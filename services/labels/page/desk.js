// The group on the desk: what has been decided of each image, and how to take it back.

/** Marks are {value, note, latencyMs} by image id; nothing here touches the document. */
export class Desk {
  index = 0;
  #undo = [];
  #shownAt = performance.now();
  #before;

  /** `review`: the group was submitted before, and only changes matter. */
  constructor(group, marks = toldBefore(group), review = false) {
    this.group = group;
    this.marks = structuredClone(marks);
    this.review = review;
    this.#before = structuredClone(marks);
    this.index = Math.max(0, this.nextMissing(-1));
  }

  get image() {
    return this.group.images[this.index];
  }

  /** The mark of image number `index`, or undefined. */
  at(index) {
    return this.marks[this.group.images[index].id];
  }

  /** Decide an image; `null` takes the verdict away. */
  mark(index, value) {
    const latencyMs = Math.round(performance.now() - this.#shownAt);
    this.#change(index, value === null ? undefined : { ...this.at(index), value, latencyMs });
  }

  note(index, text) {
    this.#change(index, { ...this.at(index), note: text || undefined });
  }

  #change(index, mark) {
    this.#undo.push({ index, before: this.at(index) });
    this.#put(index, mark);
  }

  #put(index, mark) {
    const { id } = this.group.images[index];
    if (mark) this.marks[id] = mark;
    else delete this.marks[id];
  }

  /** Take the last decision back; gives its image's number, or null where there is none. */
  undo() {
    const last = this.#undo.pop();
    if (!last) return null;
    this.#put(last.index, last.before);
    return last.index;
  }

  /** Numbers of the images that still need a verdict; one that cannot be seen needs none. */
  missing() {
    const open = (picture, index) => !picture.broken && !this.at(index)?.value;
    return this.group.images.flatMap((picture, index) => (open(picture, index) ? [index] : []));
  }

  /** The first image without a verdict after number `after`, from the start again; -1 if none. */
  nextMissing(after) {
    const missing = this.missing();
    return missing.find((index) => index > after) ?? missing[0] ?? -1;
  }

  /** The image that was decided last; 0 where nobody knows. */
  lastMarked() {
    const times = this.group.images.map((_, index) => this.at(index)?.latencyMs ?? -1);
    return Math.max(0, times.lastIndexOf(Math.max(...times)));
  }

  /** What the service gets: every image, with `skip` for what could not be shown. */
  labels() {
    return this.group.images.map(({ id }) => {
      const { value = "skip", note, latencyMs } = this.marks[id] ?? {};
      const label = { image_id: id, value };
      if (note) label.note = note;
      if (latencyMs !== undefined) label.latency_ms = latencyMs;
      return label;
    });
  }

  /** In review: what differs from what was submitted. */
  changes() {
    return this.group.images.flatMap(({ id }) => {
      const [before, after] = [this.#before[id], this.marks[id]];
      const same = before?.value === after?.value && before?.note === after?.note;
      if (same || !after?.value) return [];
      return [{ imageId: id, value: after.value, note: after.note ?? null }];
    });
  }
}

/** What this person said of the images before, where the service knows. */
function toldBefore({ assignment }) {
  const told = assignment.images.filter((image) => image.value);
  return Object.fromEntries(told.map((image) => [image.image_id, { value: image.value }]));
}
