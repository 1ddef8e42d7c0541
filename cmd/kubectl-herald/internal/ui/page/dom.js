// Elements are made here, and text comes into the page as text alone.

const svg = "http://www.w3.org/2000/svg";

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false));
  return element;
}

/** Makes an element of HTML. Children are elements and strings. */
export const h = (tag, attributes, ...children) => filled(document.createElement(tag), attributes, children);

/** Makes an element of SVG. */
export const s = (tag, attributes, ...children) => filled(document.createElementNS(svg, tag), attributes, children);

/** Replaces what is in a container, and keeps the focus on the element that has the same key. */
export function show(container, ...children) {
  const key = container.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  container.replaceChildren(...children.flat(Infinity).filter(Boolean));
  if (key) [...container.querySelectorAll("[data-key]")].find((e) => e.dataset.key === key)?.focus({ preventScroll: true });
}

/** Makes a table with headings; the first cell of a row is its heading unless the rows say otherwise. */
export function table(caption, headings, rows) {
  return h("table", {},
    h("caption", { class: "unseen" }, caption),
    h("thead", {}, h("tr", {}, headings.map((text) => h("th", { scope: "col" }, text)))),
    h("tbody", {}, rows));
}

const marks = { good: ["✓", "good: "], bad: ["✗", "wrong: "], warn: ["!", "attention: "], idle: ["○", ""], unknown: ["?", "not known: "] };

/** Says something with a mark before it, so that it does not depend on colour. */
export const marked = (kind, ...children) =>
  h("span", { class: `marked ${kind}` }, h("span", { class: "mark", "aria-hidden": "true" }, marks[kind][0]),
    h("span", {}, h("span", { class: "unseen" }, marks[kind][1]), ...children));

/** Names a count: 1 node, 2 nodes. */
export const count = (n, one, many) => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;

/** Links to the trace of a Service. */
export const traceLink = (service, text, key = "") =>
  h("a", { href: `#${encodeURI(service)}`, "data-key": `${key}${service}`, class: "trace" }, text ?? service);

function age(since) {
  const seconds = Math.max(0, Math.floor((Date.now() - Date.parse(since)) / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h`;
  return count(Math.floor(seconds / 86400), "day", "days");
}

/** Says how long ago a time was, and goes on doing so. */
export function ago(since) {
  if (!since || Number.isNaN(Date.parse(since))) return "";
  return h("time", { datetime: since, title: new Date(since).toLocaleString(), class: "age" }, age(since));
}

/** Says the time of the day. */
export const clock = (at) => h("time", { datetime: at, title: new Date(at).toLocaleString() }, new Date(at).toLocaleTimeString("en-GB"));

setInterval(() => {
  for (const element of document.querySelectorAll("time.age")) element.textContent = age(element.dateTime);
}, 1000);

const said = document.getElementById("said");

let texts = [];

/** Has a screen reader say something, after what else is to be said now. */
export function say(text) {
  if (!texts.length) {
    queueMicrotask(() => {
      said.textContent = texts.join(" ");
      texts = [];
    });
  }
  texts.push(text);
}
