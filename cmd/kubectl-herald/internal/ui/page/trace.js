// What kubectl herald explain service says of one Service. Which one is in the address of the page, after the #.
import { h, marked, show } from "./dom.js";

const dialog = document.getElementById("trace");
const content = dialog.querySelector(".content");

const wanted = () => {
  try {
    const name = decodeURI(location.hash.slice(1));
    return name.includes("/") ? name : "";
  } catch {
    return "";
  }
};

/** Shows the trace of the Service that is wanted, as it is now. */
export async function refresh() {
  const service = wanted();
  if (!service) {
    if (dialog.open) dialog.close();
    return;
  }
  if (!dialog.open) {
    show(content, h("p", { class: "note" }, "Following the Service"));
    dialog.showModal();
  }
  document.getElementById("trace-title").textContent = service;
  try {
    const answer = await fetch(`trace?service=${encodeURIComponent(service)}`);
    const report = answer.ok ? await answer.json() : { failed: await answer.json() };
    if (service === wanted()) show(content, report.failed ? h("p", { class: "next bad" }, marked("bad", report.failed)) : told(report));
  } catch {
    // The command has ended, as the page says, or the page is being left.
  }
}

function told(r) {
  const next = r.next ? marked("bad", h("strong", {}, "Next: "), r.next)
    : r.unseen.length ? marked("unknown", `Nothing has to be done in Herald, as far as can be seen: you may not list ${r.unseen.join(", ")}.`)
      : marked("good", "Nothing has to be done in Herald: it announces the Service.");
  const e = r.endpoints;
  return [
    h("p", { class: `next ${r.next ? "bad" : "good"}` }, next),
    r.check && h("p", {}, r.check),
    h("dl", {},
      entry("Load balancer", [r.class]),
      entry("Asks for", r.asks),
      entry("Ignored", r.ignored.map((text) => marked("bad", text))),
      entry("Pools", r.pools.map((p) => marked(p.fits ? "good" : "idle", h("b", {}, `${p.pool} ${p.family}`), `: ${p.text}`))),
      entry("Has", r.addresses.map(fact)),
      e && entry("Endpoints", [`${e.ready} ready${e.nodes.length ? `, on ${e.nodes.join(", ")}` : ""}${e.local ? "; only these nodes announce (externalTrafficPolicy: Local)" : ""}`, ...e.unserved.map((text) => marked("bad", text))]),
      entry("Announced", r.announced.map(fact)),
      entry("Not read", r.unread)),
  ];
}

const fact = (f) => marked(f.wrong ? "bad" : "good", h("b", { class: "address" }, f.address), ` ${f.text}`);

const entry = (name, lines) => (lines.length ? h("div", {}, h("dt", {}, name), lines.map((line) => h("dd", {}, line))) : null);

dialog.addEventListener("close", () => history.replaceState(null, "", location.pathname));
document.getElementById("close").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
addEventListener("hashchange", refresh);
