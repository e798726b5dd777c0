// What a page does beside what htmx does: times in the viewer's zone, live parts, dialogs, the theme.
"use strict";

const meta = (name) => document.querySelector(`meta[name="kedge-${name}"]`)?.content ?? "";

// Times

const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
const shown = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });

function writeTimes(within) {
  for (const each of within.querySelectorAll("time[data-at]")) {
    const at = new Date(Number(each.dataset.at) * 1000);
    each.textContent = shown.format(at);
    each.title = full.format(at);
  }
}

// A field of a form that holds a time of the viewer's zone: the server is told Unix seconds.

function showMoments() {
  for (const each of document.querySelectorAll("input[data-moment]")) {
    const seconds = document.getElementById(each.dataset.moment).value;
    if (!seconds || each.value) continue;
    const at = new Date(Number(seconds) * 1000);
    each.value = new Date(at - at.getTimezoneOffset() * 60000).toISOString().slice(0, 16);
  }
}

document.addEventListener("change", (event) => {
  const field = event.target.closest("input[data-moment]");
  if (!field) return;
  const at = field.value ? new Date(field.value).getTime() / 1000 : "";
  document.getElementById(field.dataset.moment).value = at;
});

// Live parts: <section data-live="rollout. gate." data-subject="ro-1" data-every="30" hx-get=…
// hx-trigger="live">. An event marks those that it concerns; each is asked for anew, no more often
// than every two seconds, and by the clock whatever is heard. A page that nobody sees asks nothing.

const LEAST_MS = 2000;
const asked = new WeakMap();
let stream = null;

const liveParts = () => document.querySelectorAll("[data-live]");

function refresh(part, at = performance.now()) {
  const state = asked.get(part) ?? { last: -Infinity, timer: 0 };
  asked.set(part, state);
  if (state.timer || document.hidden) return;
  const wait = Math.max(0, state.last + LEAST_MS - at);
  state.timer = setTimeout(() => {
    state.timer = 0;
    state.last = performance.now();
    // What somebody is at is not taken from under their hands.
    const busy = document.activeElement?.matches("input, textarea, select");
    if (part.isConnected && !document.hidden && !(busy && part.contains(document.activeElement))) {
      htmx.trigger(part, "live");
    }
  }, wait);
}

function heard(event) {
  const subject = JSON.parse(event.data).subject ?? "";
  for (const part of liveParts()) {
    const wanted = part.dataset.live.split(" ");
    const mine = part.dataset.subject;
    if (wanted.some((each) => event.type.startsWith(each)) && (!mine || mine === subject)) {
      refresh(part);
    }
  }
}

// A page that is new is sent what came since it was made. One that was hidden asks anew instead:
// what came meanwhile may be a day's.

function listen(after) {
  const kinds = meta("kinds").split(" ").filter(Boolean);
  const wanted = new Set([...liveParts()].flatMap((each) => each.dataset.live.split(" ")));
  const mine = kinds.filter((kind) => [...wanted].some((each) => kind.startsWith(each)));
  if (stream || !mine.length || document.hidden) return;
  const query = new URLSearchParams(mine.map((kind) => ["kind", kind]));
  const subjects = new Set([...liveParts()].map((each) => each.dataset.subject ?? ""));
  if (subjects.size === 1 && !subjects.has("")) query.set("subject", [...subjects][0]);
  if (after) query.set("after", after);
  stream = new EventSource(`/api/v1/events?${query}`);
  for (const kind of mine) stream.addEventListener(kind, heard);
  stream.addEventListener("gap", () => liveParts().forEach((each) => refresh(each)));
  let known = Boolean(after);
  stream.onopen = () => {
    say("live");
    if (!known) liveParts().forEach((each) => refresh(each));
    known = true;
  };
  stream.onerror = () => say("connection lost, trying again");
}

function say(text) {
  document.getElementById("stream").textContent = text;
}

function seen() {
  if (document.hidden) {
    stream?.close();
    stream = null;
    return;
  }
  listen("");
}

function watchTheClock() {
  for (const part of liveParts()) {
    const every = Number(part.dataset.every) * 1000;
    const state = asked.get(part);
    if (!state) asked.set(part, { last: performance.now(), timer: 0 });
    else if (every && performance.now() - state.last >= every) refresh(part);
  }
}

// Dialogs: what a form is about to do is asked for from the server, shown, and done or not.

function settle(within) {
  writeTimes(within);
  const dialog = document.getElementById("dialog");
  if (!dialog) return;
  if (dialog.childElementCount && !dialog.open) {
    dialog.showModal();
    (dialog.querySelector("[autofocus]") ?? dialog.querySelector("button"))?.focus();
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-close], [data-copy], [data-put], #theme");
  if (!button) return;
  if (button.id === "theme") changeTheme();
  if ("close" in button.dataset) document.getElementById("dialog").close();
  if (button.dataset.copy) navigator.clipboard?.writeText(button.dataset.copy);
  if (button.dataset.put) {
    const field = document.getElementById(button.dataset.put);
    field.value = button.dataset.text;
    field.focus();
    field.dispatchEvent(new Event("input", { bubbles: true }));
  }
});

document.addEventListener("change", (event) => {
  const all = event.target.closest("[data-all]");
  if (!all) return;
  for (const each of document.querySelectorAll(`input[name="${all.dataset.all}"]`)) {
    each.checked = all.checked;
  }
});

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input, textarea, select, [contenteditable]");
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/") {
    const search = document.querySelector("[data-search]");
    if (search) {
      event.preventDefault();
      search.focus();
    }
  }
});

function changeTheme() {
  const root = document.documentElement;
  const dark = root.dataset.theme
    ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("kedge-theme", root.dataset.theme);
  document.dispatchEvent(new Event("kedge:theme"));
}

document.addEventListener("htmx:config:request", (event) => {
  event.detail.ctx.request.headers["X-Kedge-CSRF"] = meta("csrf");
});
document.addEventListener("htmx:after:swap", () => {
  settle(document);
  document.dispatchEvent(new Event("kedge:shown"));
});
document.addEventListener("htmx:error", () => say("the server did not answer, try again"));
document.addEventListener("visibilitychange", seen);
document.getElementById("dialog")?.addEventListener("close", (event) => {
  event.target.replaceChildren();
});

document.getElementById("zone").textContent = zone;
settle(document);
showMoments();
listen(meta("event"));
setInterval(watchTheClock, 1000);
