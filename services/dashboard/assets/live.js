// Says when the page is not fed any more, remembers whether it is light or dark, and copies.

const STALE_AFTER_MS = window.STALE_AFTER_MS ?? 10000;
const banner = document.createElement("div");
banner.className = "stale";
banner.setAttribute("role", "alert");
banner.hidden = true;
let lastNews = Date.now();

// The server calls it every other second: a socket may be open and nobody at its other end.
window.heard = () => {
  lastNews = Date.now();
};

// After a restart of the dashboard the session is over, and its socket refused for ever.
async function leaveIfSignedOut() {
  const answer = await fetch(location.pathname, { method: "HEAD", redirect: "manual" });
  if (answer.type === "opaqueredirect") location.reload();
}

setInterval(() => {
  if (!banner.hidden) leaveIfSignedOut().catch(() => {}); // nobody answers yet
}, 2000);

setInterval(() => {
  const stale = Date.now() - lastNews > STALE_AFTER_MS;
  if (banner.hidden === stale) {
    banner.hidden = !stale;
    const since = new Date(lastNews).toISOString().slice(11, 19);
    banner.textContent = stale ? `Stale since ${since} UTC: the dashboard does not answer` : "";
  }
}, 1000);

const system = matchMedia("(prefers-color-scheme: dark)");

function apply(theme = localStorage.getItem("theme")) {
  const dark = theme ? theme === "dark" : system.matches;
  window.Quasar.Dark.set(dark);
  document.documentElement.style.colorScheme = dark ? "dark" : "light";
}

window.chooseTheme = (theme) => {
  if (theme) localStorage.setItem("theme", theme);
  else localStorage.removeItem("theme");
  apply(theme);
};

// Browsers allow it to https and to this very machine.
document.addEventListener("click", async ({ target }) => {
  const button = target.closest?.("[data-copy]");
  if (!button) return;
  const isCopied = await navigator.clipboard?.writeText(button.dataset.copy).then(() => true, () => false);
  button.textContent = isCopied ? "Copied" : "Not allowed here";
});

// A page that was left may be brought back as it was, by the button Back.
addEventListener("pagehide", () => {
  document.querySelectorAll("[data-secret]").forEach((shown) => shown.replaceChildren());
});

// NiceGUI's own scripts make the page; this one may come before them.
const waiting = setInterval(() => {
  if (!window.Quasar?.Dark || !document.querySelector(".content")) return;
  clearInterval(waiting);
  document.body.prepend(banner);
  apply();
  system.addEventListener("change", () => apply());
}, 20);
