// Requests to our own API: the CSRF token, idempotency keys, and what an answer means.

const ROOT = "/api/v1";
const TIMEOUT_MS = 15000;
const LONGEST_PAUSE_MS = 30000;
const PASSING = new Set([408, 425, 429, 500, 502, 503, 504]);

let csrfToken = null;

/** An answer of 400 or more, as RFC 9457 problem details tell it. */
export class Problem extends Error {
  constructor(status, body, retryAfterMs) {
    super(body.detail || body.title || `The service answered ${status}.`);
    this.status = status;
    this.code = body.code || "";
    this.body = body;
    this.retryAfterMs = retryAfterMs;
  }

  /** Worth trying again with the same key: nothing is wrong with what was sent. */
  get passing() {
    return PASSING.has(this.status) || this.code === "idempotency-key-running";
  }

  get signedOut() {
    return this.status === 401 || this.code === "csrf";
  }
}

/** No answer at all: the network, or a server that is away. */
export class Offline extends Error {}

/** The token that every request but GET carries from now on. */
export function useCsrfToken(token) {
  csrfToken = token;
}

/** A fresh idempotency key: 128 random bits in hexadecimal. */
export function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Milliseconds to wait before attempt `attempt` (from 1): doubling with jitter, or as told. */
export function pauseMs(attempt, error) {
  if (error?.retryAfterMs) return error.retryAfterMs;
  const doubling = Math.min(LONGEST_PAUSE_MS, 500 * 2 ** Math.min(attempt, 10));
  return doubling * (0.5 + Math.random() / 2);
}

/** `Retry-After` in milliseconds; null where the header is missing. */
export function retryAfterMs(headers) {
  const seconds = Number(headers.get("retry-after"));
  return headers.has("retry-after") && seconds >= 0 ? Math.max(250, seconds * 1000) : null;
}

/** One request. Gives {status, body, headers}; throws `Problem` or `Offline`. */
export async function call(method, path, { body, key, ifMatch } = {}) {
  const headers = { accept: "application/json" };
  if (body !== undefined) headers["content-type"] = "application/json";
  if (method !== "GET" && csrfToken) headers["x-csrf-token"] = csrfToken;
  if (key) headers["idempotency-key"] = key;
  if (ifMatch) headers["if-match"] = ifMatch;
  let answer, text;
  try {
    answer = await fetch(ROOT + path, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      credentials: "same-origin",
      cache: "no-store",
      redirect: "error",
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    text = await answer.text();
  } catch (error) {
    throw new Offline(`No answer from the service: ${error.message}`);
  }
  const parsed = parse(text);
  if (answer.ok) return { status: answer.status, body: parsed, headers: answer.headers };
  throw new Problem(answer.status, parsed || {}, retryAfterMs(answer.headers));
}

function parse(text) {
  try {
    return text ? JSON.parse(text) : null;
  } catch {
    return null; // a proxy's error page is no JSON; its status says enough
  }
}
