// BGP sessions, as the speakers report them; those that are not as they should be come first.
import { ago, count, h, marked, show, table } from "./dom.js";

const most = 100;
const well = (x) => !x.stale && x.state === "Established" && !x.withheld.length && (!x.bfd || x.bfd === "Up");

export function render({ sessions }) {
  document.getElementById("sessions").hidden = !sessions.length;
  const all = [...sessions].sort((x, y) => well(x) - well(y));
  show(document.querySelector("#sessions .content"),
    table("BGP sessions", ["Router", "Node", "State", "For", "BFD", "Routes"], all.slice(0, most).map(row)),
    all.length > most && h("p", { class: "note" }, `and ${count(all.length - most, "more", "more")}, which fare as the last ones: kubectl herald bgp peers lists all`));
}

function row(x) {
  const state = x.stale ? marked("unknown", x.state, h("span", { class: "reason" }, x.stale))
    : x.withheld.length ? marked("bad", `${x.state}, ${x.withheld.join(" and ")} withheld`, x.reason && h("span", { class: "reason" }, x.reason))
      : x.state === "Established" ? marked("good", x.state, x.reason && h("span", { class: "reason" }, x.reason))
        : marked("bad", x.state, x.reason && h("span", { class: "reason" }, x.reason));
  const bfd = !x.bfd ? h("span", { class: "faint" }, "—")
    : x.stale ? marked("unknown", x.bfd)
      : marked(x.bfd === "Up" ? "good" : "bad", x.bfd, x.bfdReason && h("span", { class: "reason" }, x.bfdReason));
  return h("tr", {},
    h("th", { scope: "row" }, x.peer, h("span", { class: "address faint" }, ` ${x.address}`)),
    h("td", { class: "number" }, x.node), h("td", {}, state), h("td", { class: "number" }, ago(x.since)), h("td", {}, bfd), h("td", { class: "number" }, x.routes.toLocaleString("en")));
}
