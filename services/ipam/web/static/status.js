// Keeps a page of the status page up to date: loads it again and puts the new content in the place of the old one, so
// that scroll position, focus and what is being typed stay. Without this script the page loads anew as a whole.
"use strict";
(() => {
  const every = 5000;
  const byId = (id) => document.getElementById(id);

  const busy = () => {
    const active = document.activeElement;
    const typing = active !== null && active.tagName === "INPUT";
    const selecting = window.getSelection().type === "Range";
    return document.hidden || typing || selecting;
  };

  const show = (fresh) => {
    const content = fresh.getElementById("content");
    if (content === null) {
      throw new Error("not a status page");
    }
    const focused = document.activeElement === null ? "" : document.activeElement.id;
    const scrolled = [...document.querySelectorAll(".wide")].map((box) => box.scrollLeft);
    byId("content").replaceWith(content);
    document.querySelectorAll(".wide").forEach((box, index) => {
      box.scrollLeft = scrolled[index] || 0;
    });
    document.querySelector(".scene").replaceWith(fresh.querySelector(".scene"));
    if (focused !== "" && byId(focused) !== null) {
      byId(focused).focus({ preventScroll: true });
    }
  };

  const stale = (why) => {
    const note = byId("stale");
    note.hidden = why === "";
    const text = why === "" ? "" : `This is old, from ${byId("as-of").textContent}: ${why}`;
    if (note.textContent !== text) {
      note.textContent = text;
    }
  };

  const load = async () => {
    if (busy()) {
      return;
    }
    try {
      const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(4 * every) });
      if (answer.status === 404) {
        stale("there is no such page any more.");
        return;
      }
      if (!answer.ok) {
        throw new Error(`the allocator answers ${answer.status}.`);
      }
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (!busy()) {
        show(fresh);
      }
      stale("");
    } catch (error) {
      stale(error instanceof TypeError ? "the allocator does not answer." : error.message);
    }
  };

  const run = async () => {
    await load();
    setTimeout(run, every);
  };
  setTimeout(run, every);
})();
