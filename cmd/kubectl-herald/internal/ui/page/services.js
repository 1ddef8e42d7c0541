// Services with their addresses, and who announces them.
import { count, h, marked, show, table, traceLink } from "./dom.js";

const step = 100;
const filter = document.getElementById("filter");
const wrong = document.getElementById("wrong");
const content = document.querySelector("#services .content");

let all = [];
let most = step;

export function render({ services }) {
  all = services.map((service) => ({ ...service, text: searchable(service) }));
  all.sort((x, y) => y.wrong - x.wrong); // As they come: by name.
  update();
}

const searchable = (x) =>
  [x.service, ...x.addresses.flatMap((a) => [a.address, ...a.owners.map((o) => o.node), ...a.routers.map((r) => r.peer)])].join(" ").toLowerCase();

function update() {
  const wanted = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  const fitting = all.filter((x) => (x.wrong || !wrong.checked) && wanted.every((word) => x.text.includes(word)));
  document.getElementById("count").textContent = fitting.length === all.length ? count(all.length, "Service", "Services") : `${fitting.length} of ${count(all.length, "Service", "Services")}`;
  if (!fitting.length) {
    show(content, h("p", { class: "note" }, all.length ? "No Service fits the filter." : "Herald serves no Service yet."));
    return;
  }
  show(content,
    table("Services and who announces their addresses", ["Service", "Address", "Owner on the segment", "Announced to routers"], fitting.slice(0, most).flatMap(rows)),
    fitting.length > most && h("button", { type: "button", "data-key": "more", onclick: () => { most += step; update(); } }, `Show ${Math.min(step, fitting.length - most)} more of ${fitting.length - most}`));
}

function rows(x) {
  const name = (n) => h("th", { scope: "rowgroup", rowspan: n > 1 ? n : undefined }, traceLink(x.service), x.pending && x.addresses.length > 0 && h("div", {}, marked("bad", x.pending)));
  if (!x.addresses.length) return h("tr", {}, name(1), h("td", { colspan: "3" }, marked("bad", x.pending || "has no address")));
  return x.addresses.map((a, i) => h("tr", {}, i === 0 && name(x.addresses.length), h("td", { class: "address" }, a.address), h("td", {}, owners(a)), h("td", {}, routers(a))));
}

function owners(a) {
  switch (a.state) {
    case "Owned": return marked("good", a.owners.map((o) => o.node).join(", "));
    case "Deputy": return marked("warn", a.owners.map((o) => `${o.node} answers for ${o.deputyFor}`).join(", "));
    case "None": return marked("bad", "nobody");
    case "New": return marked("idle", "not reported yet");
    case "NoEndpoint": return marked("idle", "no endpoint is ready");
    case "Unknown": return marked("unknown", "not in the lists of the speakers");
  }
  return h("span", { class: "faint" }, "—");
}

function routers(a) {
  if (!a.routers.length) return h("span", { class: "faint" }, "—");
  return h("ul", { class: "plain" }, a.routers.map(({ peer, nodes }) =>
    h("li", {}, peer, h("span", { class: "faint" }, " from ", nodes.length > 3 ? count(nodes.length, "node", "nodes") : nodes.join(", ")))));
}

for (const input of [filter, wrong]) {
  input.addEventListener("input", () => { most = step; update(); });
}
filter.form.addEventListener("submit", (event) => event.preventDefault());
