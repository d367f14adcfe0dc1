// Who is there and what can be reached: the session, the network, the leases. Drawn in the bar.

import { Offline, Problem } from "./api.js";
import { whoAmI } from "./session.js";

const IDLE_MS = 10 * 60 * 1000; // nobody is there: let the lease go to somebody who is
const SAY_LEASE_BELOW_S = 20;

/** Beats while somebody is looking; knows why an answer cannot leave, and when it can again. */
export class Attendance {
  session = null;
  queue = null;
  offline = false;
  signedOut = false;
  #supply;
  #view;
  #events;
  #lastInputAt = performance.now();
  #beating = false;
  #regaining = null;
  #leaseSaid = false;

  /**
   * `events`: leased() gives the group in work on screen or null; reclaim() tries to lease the lost
   * one again and resolves to whether it did; turnedAway(); welcome().
   */
  constructor(supply, view, events) {
    this.#supply = supply;
    this.#view = view;
    this.#events = events;
  }

  /** Somebody touched something. */
  input() {
    this.#lastInputAt = performance.now();
  }

  /** Every second. */
  tick() {
    this.drawLease();
    const present = performance.now() - this.#lastInputAt < IDLE_MS;
    if (!document.hidden && !this.signedOut && present) this.#beat();
  }

  async #beat() {
    if (this.#beating) return;
    this.#beating = true;
    try {
      const lost = await this.#supply.beat();
      if (lost.includes(this.#supply.current)) await this.#leaseLost();
    } catch (error) {
      this.notReached(error);
    } finally {
      this.#beating = false;
    }
  }

  async #leaseLost() {
    this.drawLease();
    if (await this.#events.reclaim()) {
      this.#view.announce("The lease on this group had ended; it is yours again.");
      this.drawLease();
      return;
    }
    this.#view.notice(
      "lost",
      "Your lease on this group ended. Your labels are kept: submit them, and they count " +
        "unless somebody else has taken the group.",
    );
  }

  /** An answer came. */
  reached() {
    if (!this.offline) return;
    this.offline = false;
    this.drawSending();
  }

  /** A request failed: why, in the bar. What is neither network nor service is a fault of ours. */
  notReached(error) {
    if (error instanceof Problem && error.signedOut) this.sessionEnded();
    else if (error instanceof Offline) this.wentOffline();
    else if (!(error instanceof Problem)) throw error;
  }

  wentOffline() {
    this.offline = true;
    this.drawSending();
  }

  /** The session ended: look once whether another tab has begun a new one, then tell. */
  async sessionEnded() {
    if (this.signedOut) return;
    this.signedOut = true;
    this.drawSending();
    if (await this.regain()) return;
    if (!this.#events.leased()) {
      this.#events.turnedAway();
      return;
    }
    const text =
      "You have been signed out. Nothing is lost: go on, answers are kept in this browser. " +
      "Open an invite link in another tab to have them sent.";
    this.#view.notice("session", text, [["I have signed in", () => this.regain()]]);
  }

  /** Is there a session again? */
  regain() {
    if (!this.signedOut) return Promise.resolve(true);
    this.#regaining ??= this.#lookForSession().finally(() => {
      this.#regaining = null;
    });
    return this.#regaining;
  }

  async #lookForSession() {
    let session;
    try {
      session = await whoAmI();
    } catch (error) {
      if (error instanceof Offline || error instanceof Problem) return false;
      throw error;
    }
    if (!session) return false;
    // Somebody else's session: their own page, with their own queue.
    if (session.annotator_id !== this.session.annotator_id) location.reload();
    this.signedOut = false;
    this.session = session;
    this.#view.unnotice("session");
    this.#view.announce("Signed in again.");
    this.queue.flush();
    this.#events.welcome();
    return true;
  }

  /** The chip that says whether answers leave. */
  drawSending() {
    const waiting = this.queue?.waiting ?? 0;
    const unreached = this.offline ? "offline" : null;
    const trouble = this.signedOut ? "signed-out" : (this.queue?.trouble ?? unreached);
    this.#view.sending(waiting, trouble);
  }

  /** The chip that counts down. */
  drawLease() {
    const group = this.#events.leased();
    if (!group) {
      this.#view.lease(null);
      return;
    }
    const seconds = Math.round(group.leftMs / 1000);
    if (seconds <= SAY_LEASE_BELOW_S && seconds > 0 && !this.#leaseSaid) {
      this.#view.announce(`The lease on this group ends in ${seconds} seconds.`);
    }
    this.#leaseSaid = seconds <= SAY_LEASE_BELOW_S;
    this.#view.lease(seconds, group.lost);
  }
}
