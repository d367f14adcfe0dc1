// Groups to label: the one in work, the next one already leased and its images decoded, and the
// heartbeats that keep both leases.

import { Problem, call, newKey, pauseMs, retryAfterMs } from "./api.js";

const HEARTBEAT_SHARE = 1 / 3; // of the lease: two may be lost before it ends
const LONGEST_LEASE_MS = 24 * 3600 * 1000;
const FALLBACK_LEASE_MS = 120000;
const SOON_MS = 10000;
const MOST_HELD = 8;
const PREFETCH_ATTEMPT = 3; // as patient as a third attempt: some seconds

/** A leased group: the service's answer, its images as elements, and when the lease ends. */
export class LeasedGroup {
  lost = false;

  constructor(assignment, leaseMs) {
    const ordered = [...assignment.images].sort((a, b) => a.position - b.position);
    this.images = ordered.map((image) => new Picture(image));
    this.adopt(assignment, leaseMs);
  }

  /** Take over a (newer) lease on this group; what is on screen stays as it is. */
  adopt(assignment, leaseMs) {
    this.id = assignment.assignment_id;
    this.assignment = assignment;
    this.lost = false;
    this.renew(leaseMs);
  }

  /** Whether an assignment is of the very images that are on screen. */
  asksTheSameAs({ images }) {
    const shown = new Set(this.images.map(({ id }) => id));
    return images.length === shown.size && images.every(({ image_id: id }) => shown.has(id));
  }

  renew(leaseMs) {
    this.leaseMs = leaseMs;
    this.endsAt = performance.now() + leaseMs;
  }

  get token() {
    return this.assignment.lease_token;
  }

  get leftMs() {
    return Math.max(0, this.endsAt - performance.now());
  }

  /** Settles when every image can be painted at once, or has failed. */
  loaded() {
    return Promise.all(this.images.map((picture) => picture.ready));
  }
}

class Picture {
  broken = false;
  #sharp = false;

  constructor({ image_id: id, url }) {
    this.id = id;
    this.url = url;
    this.element = new Image();
    this.element.decoding = "sync"; // decoded ahead; painting must not wait a frame more
    this.load();
  }

  /** (Re)load; `ready` resolves to whether there is a picture. */
  load() {
    this.broken = false;
    this.element.src = `${this.url}?size=512`;
    this.ready = this.element.decode().then(
      () => true,
      () => {
        this.broken = true;
        return false;
      },
    );
  }

  /** Every pixel, for who looks closely; the smaller one stays until it is there. */
  sharpen() {
    if (this.#sharp || this.broken) return;
    this.#sharp = true;
    const whole = new Image();
    whole.src = this.url;
    // After `ready`: another source would abort the decoding that it waits for.
    Promise.all([whole.decode(), this.ready]).then(
      () => {
        this.element.src = this.url;
      },
      () => null, // the smaller one is better than none
    );
  }
}

/** Claims, prefetches and keeps leases. */
export class Supply {
  current = null;
  next = null;
  retryMs = SOON_MS; // when to ask again, after an empty answer
  #done = new Set(); // decided here, perhaps not yet there
  #ahead = null; // the prefetch under way

  /** The next group: at once where prefetched; null where the queue is empty (see `retryMs`). */
  async take() {
    await this.#ahead;
    return this.takeReady() ?? (this.current = await this.#claim());
  }

  /** The group in work, else the prefetched one, without waiting; or null. */
  takeReady() {
    if (this.current || !this.next) return this.current;
    this.current = this.next;
    this.next = null;
    return this.current;
  }

  /** Lease the group after this one and load its images, quietly. */
  prefetch() {
    if (this.next || !this.current) return this.#ahead;
    this.#ahead ??= this.#claim()
      .then((group) => {
        this.next = group;
      })
      .catch((error) => {
        // Quietly: should it still fail when the group is needed, `take` tells the person.
        this.retryMs = pauseMs(PREFETCH_ATTEMPT, error);
      })
      .finally(() => {
        this.#ahead = null;
      });
    return this.#ahead;
  }

  /** The group has been decided: never show it again, even if the service still thinks it ours. */
  finish(group) {
    this.#done.add(group.id);
    if (this.current === group) this.current = null;
  }

  async #claim() {
    const key = newKey();
    const known = [...this.#done, this.current?.id, this.next?.id].filter(Boolean);
    const holding = known.slice(-MOST_HELD);
    const request = { body: { wait_seconds: 0, holding }, key };
    const { status, body: assignment, headers } = await call("POST", "/assignments", request);
    if (status === 204 || !assignment) {
      this.retryMs = retryAfterMs(headers) ?? SOON_MS;
      return null;
    }
    if (holding.includes(assignment.assignment_id)) {
      this.retryMs = SOON_MS / 10; // our answer to it is still on its way
      return null;
    }
    const mine = this.current;
    if (mine?.lost && mine.asksTheSameAs(assignment)) {
      mine.adopt(assignment, leaseMs(assignment, headers)); // ours once more
      return null;
    }
    return new LeasedGroup(assignment, leaseMs(assignment, headers));
  }

  /** Renew both leases where a third of the time has gone; gives the groups just lost. */
  async beat() {
    const lost = [];
    for (const group of [this.current, this.next]) {
      if (!group || group.lost || group.leftMs > group.leaseMs * (1 - HEARTBEAT_SHARE)) continue;
      try {
        const path = `/assignments/${encodeURIComponent(group.id)}/heartbeat`;
        const answer = await call("POST", path, {
          body: { lease_token: group.token },
          key: newKey(),
        });
        group.renew(leaseMs(answer.body, answer.headers));
      } catch (error) {
        if (!(error instanceof Problem) || ![404, 409, 410].includes(error.status)) throw error;
        group.lost = true;
        lost.push(group);
        if (group === this.next) this.next = null;
      }
    }
    return lost;
  }
}

/** Milliseconds of lease left, by the service's clock alone: the browser's may be wrong. */
function leaseMs(answer, headers) {
  if (typeof answer.lease_seconds === "number") return answer.lease_seconds * 1000;
  const left = Date.parse(answer.lease_expires_at) - Date.parse(headers.get("date"));
  return left > 0 && left < LONGEST_LEASE_MS ? left : FALLBACK_LEASE_MS;
}
