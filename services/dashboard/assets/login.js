// A key, or the secret behind # in the address, becomes a cookie; then on to where one wanted to go.

const form = document.getElementById("form");
const field = document.getElementById("secret");
const said = document.getElementById("said");

function destination() {
  const wanted = new URLSearchParams(location.search).get("next") ?? "/";
  const url = new URL(wanted, location.origin);
  return url.origin === location.origin && !wanted.startsWith("/login") ? url.href : "/";
}

async function signIn(secret) {
  said.textContent = "Signing in";
  const answer = await fetch("/api/v1/session", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ secret }),
  });
  if (answer.ok) {
    location.replace(destination());
    return;
  }
  const problem = await answer.json().catch(() => ({ detail: answer.statusText }));
  said.textContent = problem.detail;
  field.focus();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  signIn(field.value.trim()).catch(() => {
    said.textContent = "The dashboard does not answer; is it running?";
  });
});

const invite = new URLSearchParams(location.hash.slice(1)).get("invite");
if (invite) {
  history.replaceState(null, "", location.pathname + location.search);
  await signIn(invite);
} else {
  field.focus();
}
