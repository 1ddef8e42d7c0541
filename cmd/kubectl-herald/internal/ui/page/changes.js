// What has happened since the command began.
import { clock, h, marked, say, show } from "./dom.js";

let newest;

export function render({ changes, reading }) {
  const content = document.querySelector("#changes .content");
  if (newest !== undefined && changes.length && JSON.stringify(changes[0]) !== newest) say(changes[0].text);
  newest = changes.length ? JSON.stringify(changes[0]) : "";
  if (!changes.length) {
    show(content, h("p", { class: "note" }, "None since ", clock(reading.began), "."));
    return;
  }
  show(content, h("ol", { class: "log", tabindex: "0", "aria-label": "Failovers, the newest first" },
    changes.map((c) => h("li", {}, clock(c.at), c.wrong ? marked("bad", c.text) : h("span", { class: "marked" }, h("span", { class: "mark", "aria-hidden": "true" }, "→"), h("span", {}, c.text))))));
}
