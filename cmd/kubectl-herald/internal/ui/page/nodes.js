// Nodes and what their speakers report; those that are not as they should be come first.
import { count, h, marked, show, table } from "./dom.js";

const most = 100;

/** Says what is wrong with a node; empty: nothing. */
export const trouble = (x) =>
  !x.ready ? "not Ready" : x.foreign ? "" : !x.speaker ? "no SpeakerStatus" : x.stale || x.problem;

export function render({ nodes }) {
  const all = [...nodes].sort((x, y) => !trouble(x) - !trouble(y));
  show(document.querySelector("#nodes .content"),
    table("Nodes", ["Node", "State", "Segments", "Owns", "Sessions", "BFD"], all.slice(0, most).map(row)),
    all.length > most && h("p", { class: "note" }, `and ${count(all.length - most, "more", "more")}: kubectl herald status lists all`));
}

function row(x) {
  const wrong = trouble(x);
  const state = wrong ? marked("bad", wrong) : x.excluded ? marked("idle", "excluded by its label: announces nothing") : x.foreign ? marked("idle", `${x.foreign}: no speaker belongs here`) : marked("good", "Ready, its speaker works");
  return h("tr", {},
    h("th", { scope: "row" }, x.node),
    h("td", {}, state),
    h("td", {}, h("ul", { class: "plain" }, x.interfaces.map((i) => h("li", {}, `${i.name} ${i.state}`, h("span", { class: "faint" }, `, hears ${count(i.neighbours, "node", "nodes")}`))))),
    h("td", { class: "number" }, count(x.l2Addresses, "address", "addresses")),
    h("td", { class: "number" }, x.sessions || "—"), h("td", { class: "number" }, x.bfd || "—"));
}
