// What is wrong, first of all.
import { clock, count, h, marked, say, show, traceLink } from "./dom.js";

const most = 20;
let told;

export function render({ problems, reading }) {
  const all = [...problems];
  if (reading?.error) {
    const stand = reading.at.startsWith("0001") ? [] : [" What is shown is of ", clock(reading.at), "."];
    all.unshift({ kind: "NotRead", text: `The cluster cannot be read: ${reading.error}.`, more: stand });
  }
  const section = document.getElementById("problems");
  const unseen = reading?.unseen?.length ? h("p", { class: "note" }, `Not everything can be seen: you may not list ${reading.unseen.join(", ")}.`) : false;
  section.dataset.state = all.length ? "bad" : "good";
  announce(all);
  if (!all.length) {
    show(section, h("h2", {}, unseen ? marked("unknown", "Nothing needs attention, as far as can be seen") : marked("good", "Nothing needs attention")), unseen);
    return;
  }
  show(section,
    h("h2", {}, marked("bad", count(all.length, "thing needs attention", "things need attention"))),
    h("ul", { class: "problems" }, all.slice(0, most).map(problem)),
    all.length > most && h("p", { class: "note" }, `and ${count(all.length - most, "more", "more")}: kubectl herald status lists all`),
    unseen);
}

function problem({ kind, text, more }) {
  // What a command would say is a click away here.
  const [, service] = text.match(/kubectl herald explain service (\S+)/) ?? [];
  return h("li", {}, h("span", { class: "kind" }, words(kind)), h("p", {}, text, more, service && [" ", traceLink(service, "Trace it", "problem ")]));
}

/** AddressConflict: Address conflict. BFDDown: BFD down. */
const words = (kind) => {
  const text = kind.replace(/([a-z])([A-Z])|([A-Z])([A-Z][a-z])/g, "$1$3 $2$4");
  return text.split(" ").map((word, i) => (i && word !== word.toUpperCase() ? word.toLowerCase() : word)).join(" ");
};

// Ages in texts change all the time, so what is told is what the problems are about.
function announce(all) {
  const key = JSON.stringify(all.map((p) => [p.kind, p.address, p.nodes]));
  if (told !== undefined && key !== told) say(all.length ? `${count(all.length, "problem", "problems")}. ${all[0].text}` : "Nothing needs attention.");
  told = key;
}
