// Renews the parts of the page that have changed, every five seconds.
"use strict";
(() => {
  const every = 5000;
  const live = document.getElementById("live");
  const parts = () => document.querySelectorAll("[data-live]");
  const shown = new Map([...parts()].map((part) => [part.id, part.outerHTML]));
  let tag = "";

  const say = (state, title) => {
    live.dataset.says = state;
    live.title = title;
  };

  const replace = (part, next) => {
    const open = new Set([...part.querySelectorAll("details[open]")].map((d) => d.id));
    const scrolled = [...part.querySelectorAll(".scroll")].map((s) => s.scrollLeft);
    const focus = part.contains(document.activeElement) && document.activeElement.getAttribute("href");
    part.replaceWith(next);
    next.querySelectorAll("details").forEach((d) => { d.open = d.open || open.has(d.id); });
    next.querySelectorAll(".scroll").forEach((s, i) => { s.scrollLeft = scrolled[i] || 0; });
    if (focus) [...next.querySelectorAll("a")].find((a) => a.getAttribute("href") === focus)?.focus({ preventScroll: true });
  };

  const renew = async () => {
    if (document.hidden) return;
    let answer;
    try {
      // location.href may hold a password, with which fetch refuses it.
      answer = await fetch(location.origin + location.pathname + location.search, { cache: "no-store", headers: tag ? { "If-None-Match": tag } : {} });
    } catch {
      say("lost", "The server cannot be reached. The page tries again every 5 seconds.");
      return;
    }
    if (answer.status === 304) {
      say("live", "This page renews itself every 5 seconds.");
      return;
    }
    if (answer.status !== 200) {
      say("lost", "The server answers with status " + answer.status + ".");
      return;
    }
    tag = answer.headers.get("ETag") || "";
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const next = new Map([...page.querySelectorAll("[data-live]")].map((part) => [part.id, part]));
    for (const part of parts()) {
      const other = next.get(part.id);
      if (!other || shown.get(part.id) === other.outerHTML) continue;
      shown.set(part.id, other.outerHTML);
      replace(part, document.importNode(other, true));
    }
    say("live", "This page renews itself every 5 seconds.");
  };

  setInterval(renew, every);
  document.addEventListener("visibilitychange", renew);
  document.documentElement.dataset.ready = "";
})();
