// Trades the invite in the address's fragment (which no server log sees) for a session cookie.

import { Offline } from "./api.js";
import { signIn } from "./session.js";

const byId = (id) => document.getElementById(id);
const invite = inviteIn(location.hash);

// A button, not a load, spends the invite: previews of links in mail and chat run scripts too.
if (invite) {
  history.replaceState(null, "", location.pathname);
  byId("paste").hidden = true;
  byId("text").textContent =
    "Your invite is ready. It works once and keeps this browser signed in.";
  byId("start").focus();
}

byId("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const secret = invite || inviteIn(byId("invite").value);
  if (!secret) {
    say("That is no invite link; it ends in #invite= and a long word.");
    return;
  }
  byId("start").disabled = true;
  try {
    await signIn(secret);
    location.replace("/label");
  } catch (error) {
    say(explain(error));
    byId("start").disabled = false;
  }
});

function inviteIn(text) {
  return /invite=([\w.~-]+)/.exec(text)?.[1] ?? null;
}

function explain(error) {
  if (error instanceof Offline) return "The service does not answer. Try again in a moment.";
  if (error.status === 429) return "Too many tries. Wait a minute, then try again.";
  if (error.code !== "invite-invalid") return error.message;
  return "This invite is unknown, used or expired. Ask whoever invited you for a new link.";
}

function say(text) {
  byId("message").textContent = text;
}
