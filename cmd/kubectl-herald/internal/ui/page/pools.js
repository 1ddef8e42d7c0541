// How full the pools are.
import { h, marked, show } from "./dom.js";

const unbounded = 9007199254740991;
const number = (n) => (n >= unbounded ? "2⁵³ or more" : n.toLocaleString("en"));

export function render({ pools }) {
  show(document.querySelector("#pools .content"),
    pools.length ? pools.map(pool) : h("p", { class: "note" }, "There are no IPPools: create one to give out addresses."));
}

function pool(p) {
  const used = p.namespaces.slice(0, 3).map((n) => `${n.namespace} ${number(n.addresses)}`);
  if (p.namespaces.length > 3) used.push(`${p.namespaces.length - 3} more`);
  if (p.reserved) used.push(`reserved ${number(p.reserved)}`);
  return h("article", { class: "pool" },
    h("h3", {}, p.name),
    h("p", { class: "address faint" }, p.addresses.slice(0, 4).join(", "), p.addresses.length > 4 && ` and ${p.addresses.length - 4} more`),
    p.families.map(family),
    used.length > 0 && h("p", { class: "faint" }, `Used by ${used.join(", ")}`),
    p.outOfRange.length > 0 && h("p", { class: "faint" }, `Out of range, and still in use by ${p.outOfRange.map((n) => `${n.namespace} ${number(n.addresses)}`).join(", ")}`),
    p.attention.map((a) => h("p", {}, marked("warn", `${a.type}: ${a.reason}: ${a.message}`))));
}

function family(f) {
  const bar = h("div", { class: "bar", "aria-hidden": "true" }, portion("used", f.used, f.capacity), portion("cooling", f.cooling, f.capacity));
  return h("div", { class: "family" },
    h("span", { class: "name" }, f.family),
    bar,
    h("span", { class: "numbers" }, h("b", {}, number(f.used)), " used", f.cooling > 0 && `, ${number(f.cooling)} cooling`, `, ${number(f.free)} free of ${number(f.capacity)}`));
}

function portion(kind, n, of) {
  if (n === 0) return null;
  const element = h("span", { class: kind });
  element.style.width = `${Math.max(0.8, (100 * n) / of)}%`; // The least is still seen.
  return element;
}
