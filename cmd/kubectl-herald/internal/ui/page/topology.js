// How routers, nodes and segments are connected, and which node owns which addresses. The tables say the same in words.
import { count, h, s, show } from "./dom.js";
import { trouble } from "./nodes.js";

const most = 12; // Nodes that are drawn.
const lines = 4; // Addresses in a node.
const card = 172, gap = 26, margin = 14, row = 17;

export function render({ nodes, segments, sessions, services }) {
  const content = document.querySelector("#topology .content");
  if (!nodes.length) {
    show(content, h("p", { class: "note" }, "There are no nodes."));
    return;
  }
  const drawn = chosen(nodes);
  const routers = routersOf(sessions, drawn);
  const owned = ownedBy(services);
  const on = segments.map((g) => ({ ...g, members: g.members.filter((m) => drawn.some((n) => n.node === m.node)) })).filter((g) => g.members.length);
  show(content,
    picture(drawn, routers, on, owned, `${count(routers.length, "router", "routers")}, ${count(nodes.length, "node", "nodes")}, ${count(segments.length, "segment", "segments")}. The tables of sessions, nodes and Services say the same in words.`),
    nodes.length > drawn.length && h("p", { class: "note" }, `${count(nodes.length - drawn.length, "other node is", "other nodes are")} in the table of nodes.`));
}

/** What is wrong with a node, in few words. The table says more. */
const brief = (n) => (!n.ready ? "not Ready" : !n.speaker ? "no SpeakerStatus" : n.stale ? "speaker is silent" : "announces nothing");

/** Nodes that are drawn: all, or those with a problem first. */
function chosen(nodes) {
  if (nodes.length <= most) return nodes;
  const some = [...nodes].sort((x, y) => !trouble(x) - !trouble(y)).slice(0, most);
  return nodes.filter((n) => some.includes(n));
}

function routersOf(sessions, drawn) {
  const all = new Map();
  for (const x of sessions) {
    if (!drawn.some((n) => n.node === x.node)) continue;
    if (!all.has(x.peer)) all.set(x.peer, { name: x.peer, addresses: new Set(), sessions: [] });
    all.get(x.peer).addresses.add(x.address);
    all.get(x.peer).sessions.push(x);
  }
  return [...all.values()].slice(0, most);
}

function ownedBy(services) {
  const all = new Map();
  const seen = new Set();
  for (const { addresses } of services) {
    for (const a of addresses) {
      for (const o of a.owners) {
        const key = `${a.address} ${o.node}`;
        if (seen.has(key)) continue; // Services may share it.
        seen.add(key);
        if (!all.has(o.node)) all.set(o.node, []);
        all.get(o.node).push({ address: a.address, deputyFor: o.deputyFor });
      }
    }
  }
  const order = new Intl.Collator("en", { numeric: true });
  for (const some of all.values()) some.sort((x, y) => order.compare(x.address, y.address));
  return all;
}

const shortened = (text, length) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);

function label(x, y, kind, text, length) {
  return s("text", { x, y, class: kind }, shortened(text, length), text.length > length && s("title", {}, text));
}

function picture(nodes, routers, segments, owned, description) {
  const width = Math.max(nodes.length, routers.length) * (card + gap) - gap + 2 * margin;
  const place = (i, of) => (width * (i + 0.5)) / of;
  const top = routers.length ? 150 : margin;
  const tall = Math.max(1, ...nodes.map((n) => Math.min(owned.get(n.node)?.length ?? 0, lines + 1)));
  const height = 58 + tall * row;
  const bottom = top + height;
  const at = new Map(nodes.map((n, i) => [n.node, place(i, nodes.length)]));
  const full = bottom + (segments.length ? 8 + segments.length * 50 : margin);
  return s("svg", { viewBox: `0 0 ${width} ${full}`, width, height: full, role: "img", "aria-label": description },
    routers.map((r, i) => r.sessions.map((x) => session(x, place(i, routers.length), at.get(x.node), top))),
    segments.map((g, i) => segment(g, i, segments.length, at, bottom)),
    routers.map((r, i) => router(r, place(i, routers.length))),
    nodes.map((n) => node(n, at.get(n.node), top, height, owned.get(n.node) ?? [])));
}

function router(r, x) {
  const left = x - card / 2;
  const up = r.sessions.filter((y) => !y.stale && y.state === "Established" && !y.withheld.length).length;
  return s("g", { class: up === r.sessions.length ? "router" : "router wrong" },
    s("rect", { x: left, y: margin, width: card, height: 46, rx: 23 }),
    label(x, margin + 20, "name middle", r.name, 20),
    label(x, margin + 36, "detail middle", `${[...r.addresses].filter(Boolean)[0] ?? ""}${r.addresses.size > 1 ? " …" : ""}`, 26));
}

function session(x, from, to, top) {
  const y = margin + 46;
  const kind = x.stale ? "unknown" : x.state === "Established" && !x.withheld.length ? "up" : "down";
  const middle = (y + top) / 2;
  return s("g", { class: `session ${kind}` },
    s("path", { d: `M${from} ${y} C${from} ${middle} ${to} ${middle} ${to} ${top}` }),
    kind !== "up" && s("circle", { cx: (from + to) / 2, cy: middle, r: 9 }),
    kind !== "up" && s("text", { x: (from + to) / 2, y: middle + 4, class: "middle" }, kind === "down" ? "✗" : "?"),
    s("title", {}, `${x.node} with ${x.peer}: ${x.stale || (x.withheld.length ? `${x.withheld.join(" and ")} withheld` : x.state)}`));
}

function node(n, x, top, height, addresses) {
  const left = x - card / 2;
  const wrong = trouble(n);
  const shown = addresses.length > lines + 1 ? addresses.slice(0, lines) : addresses;
  const text = wrong ? `✗ ${brief(n)}` : n.foreign ? n.foreign : n.excluded ? "excluded by its label" : addresses.length ? `owns ${count(addresses.length, "address", "addresses")}` : "owns no address";
  return s("g", { class: wrong ? "node wrong" : "node" },
    s("rect", { x: left, y: top, width: card, height, rx: 8 }),
    s("rect", { x: left, y: top + 10, width: 4, height: height - 20, class: "edge" }),
    label(left + 16, top + 24, "name", n.node, 19),
    label(left + 16, top + 42, "detail", text, 24),
    shown.map((a, i) => label(left + 16, top + 62 + i * row, a.deputyFor ? "owned deputy" : "owned", a.deputyFor ? `${a.address} for ${a.deputyFor}` : a.address, 20)),
    shown.length < addresses.length && label(left + 16, top + 62 + lines * row, "detail", `and ${addresses.length - lines} more`, 24));
}

function segment(g, i, of, at, bottom) {
  const y = bottom + 34 + i * 50;
  const xs = g.members.map((m) => at.get(m.node) + (i - (of - 1) / 2) * 22);
  const left = Math.min(...xs) - (xs.length > 1 ? 40 : 60), right = Math.max(...xs) + (xs.length > 1 ? 40 : 60);
  return s("g", { class: "segment" },
    g.members.map((m, j) => [
      s("line", { x1: xs[j], y1: bottom, x2: xs[j], y2: y }),
      label(xs[j] + 5, bottom + 15, "detail", m.interface, 10),
    ]),
    s("line", { x1: left, y1: y, x2: right, y2: y, class: "bus" }),
    label(left, y + 18, "detail", g.subnets.join(" · ") || "segment", 60));
}
