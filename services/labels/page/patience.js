// Waiting for an answer or for work: said on screen, cut short by the person or a newer wait.

import { Offline, Problem, pauseMs } from "./api.js";

const TICK_MS = 1000;

/** One wait at a time has the screen: `begin` ends the others. */
export class Patience {
  #turn = 0;
  #wake = () => null;
  #view;
  #attendance;

  constructor(view, attendance) {
    this.#view = view;
    this.#attendance = attendance;
  }

  /** A new wait; gives what tells whether it still is the newest. */
  begin() {
    this.#turn += 1;
    const turn = this.#turn;
    return () => turn === this.#turn;
  }

  /** Do not wait any longer; look now. */
  wake() {
    this.#wake();
  }

  /** Call until there is an answer, telling the person why it takes so long; null once replaced. */
  async insist(act, isNewest) {
    for (let attempt = 1; isNewest(); attempt += 1) {
      try {
        const answer = await act();
        this.#attendance.reached();
        return answer;
      } catch (error) {
        const passing = error instanceof Offline || (error instanceof Problem && error.passing);
        if (!passing) throw error;
        if (isNewest()) this.#tell(error);
        await this.#pause(pauseMs(attempt, error));
      }
    }
    return null;
  }

  #tell(error) {
    const offline = error instanceof Offline;
    if (offline) this.#attendance.wentOffline();
    const waiting = this.#attendance.queue?.waiting ?? 0;
    const groups = waiting === 1 ? "1 group" : `${waiting} groups`;
    const kept = waiting ? ` Your answers to ${groups} are kept and will be sent.` : "";
    const title = offline ? "You are offline" : "The service is busy";
    this.#view.panel("offline", title, `The page goes on by itself.${kept}`, [
      ["Try now", () => this.wake(), true],
    ]);
  }

  /** Nothing to do for `ms`; `choices` are the panel's buttons beside "Look again". */
  async rest(ms, isNewest, choices) {
    this.#view.panel("empty", "All caught up", "", [
      ["Look again", () => this.wake(), true],
      ...choices,
    ]);
    const until = performance.now() + ms;
    for (let left = ms; left > 0; left = until - performance.now()) {
      const time = `${Math.ceil(left / 1000)}\u00a0s`;
      this.#view.panelText(`There is nothing to label right now. Looking again in ${time}.`);
      const woken = await this.#pause(Math.min(TICK_MS, left));
      if (woken || !isNewest()) return;
    }
  }

  /** Resolves to whether somebody woke us before the time was over. */
  #pause(ms) {
    return new Promise((resolve) => {
      const timer = setTimeout(() => resolve(false), ms);
      this.#wake = () => {
        clearTimeout(timer);
        resolve(true);
      };
    });
  }
}
