// The page is fed by one stream: each event is a part of what is shown, and comes again when it has changed.
import * as changes from "./changes.js";
import * as nodes from "./nodes.js";
import * as pools from "./pools.js";
import * as problems from "./problems.js";
import * as services from "./services.js";
import * as sessions from "./sessions.js";
import * as topology from "./topology.js";
import * as trace from "./trace.js";
import { ago, show } from "./dom.js";

const parts = ["problems", "nodes", "segments", "sessions", "pools", "services", "changes", "reading"];
const shown = [
  { by: problems, needs: ["problems", "reading"] },
  { by: topology, needs: ["nodes", "segments", "sessions", "services"] },
  { by: changes, needs: ["changes", "reading"] },
  { by: services, needs: ["services"] },
  { by: pools, needs: ["pools"] },
  { by: sessions, needs: ["sessions"] },
  { by: nodes, needs: ["nodes"] },
];

const state = {};
const changed = new Set();
let stream;

function open() {
  stream = new EventSource("events");
  for (const name of parts) {
    stream.addEventListener(name, (event) => {
      state[name] = JSON.parse(event.data);
      changed.add(name);
      if (name === "reading") render(); // It is the last of those that come together.
    });
  }
  stream.addEventListener("error", () => indicate("lost", "No connection: kubectl herald ui has ended"));
}

// While a button of the mouse is down, or a finger, nothing is replaced: a click is lost if what was pressed is gone.
let pressed = false;
addEventListener("pointerdown", () => { pressed = true; }, true);
for (const end of ["pointerup", "pointercancel"]) {
  addEventListener(end, () => setTimeout(() => { pressed = false; if (changed.size) render(); }), true); // After the click.
}

function render() {
  if (pressed) return;
  if (state.problems) {
    for (const { by, needs } of shown) {
      if (needs.some((name) => changed.has(name))) by.render(state);
    }
    trace.refresh();
  } else {
    problems.render({ problems: [], reading: state.reading });
  }
  changed.clear();
  const { cluster } = state.reading;
  document.getElementById("cluster").textContent = cluster;
  document.title = state.problems?.length ? `(${state.problems.length}) Herald` : "Herald";
  mark();
}

// How late a reading may be before it counts as lost.
const overdue = 30_000;
const late = () => Date.now() > Date.parse(state.reading.due) + overdue;

function mark() {
  const { error, at } = state.reading;
  if (error) indicate("lost", "The cluster cannot be read");
  else if (late()) indicate("lost", "Last read ", ago(at), " ago");
  else indicate("live", "Read ", ago(at), " ago");
}

setInterval(() => {
  if (document.getElementById("reading").dataset.state === "live" && late()) mark();
}, 1000);

function indicate(name, ...text) {
  const reading = document.getElementById("reading");
  reading.dataset.state = name;
  show(reading, ...text.map((t) => (typeof t === "string" ? document.createTextNode(t) : t)));
}

// A page that nobody sees reads nothing.
document.addEventListener("visibilitychange", () => {
  stream.close();
  if (document.visibilityState === "visible") open();
});

open();
