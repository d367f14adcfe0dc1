// Who is signed in, and for how long they have been at it.

import { Problem, call, newKey, useCsrfToken } from "./api.js";

const NUDGE_AFTER_MS = 25 * 60 * 1000;
const BREAK_MS = 5 * 60 * 1000;

/** The session behind the cookie, or null where there is none. Throws `Offline`, `Problem`. */
export async function whoAmI() {
  try {
    const { body } = await call("GET", "/session");
    useCsrfToken(body.csrf_token);
    return body;
  } catch (error) {
    if (error instanceof Problem && [401, 404].includes(error.status)) return null;
    throw error;
  }
}

/** Trade an invite for a session cookie. */
export async function signIn(invite) {
  const { body } = await call("POST", "/session", { body: { invite }, key: newKey() });
  useCsrfToken(body?.csrf_token ?? null);
}

export async function signOut() {
  await call("DELETE", "/session");
}

/** Counts time at work; a pause of five minutes starts it anew. */
export class WorkClock {
  #startedAt = null;
  #lastAt = null;

  /** Note a decision at `now` (ms); true where it is time to suggest a break. */
  worked(now) {
    if (this.#lastAt === null || now - this.#lastAt > BREAK_MS) this.#startedAt = now;
    this.#lastAt = now;
    if (now - this.#startedAt < NUDGE_AFTER_MS) return false;
    this.#startedAt = now; // once per stretch
    return true;
  }
}
