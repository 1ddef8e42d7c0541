(() => {
  const findings = [];
  const named = (e) => e.tagName + (e.id ? `#${e.id}` : "") + (e.className?.baseVal ?? e.className ? `.${e.className.baseVal ?? e.className}` : "") + ` "${e.textContent.trim().slice(0, 40)}"`;
  const find = (what, e) => findings.push(`${what}: ${named(e)}`);
  const seen = (e) => e.checkVisibility({ visibilityProperty: true }) && !e.closest(".unseen");

  // Names.
  const text = (id) => document.getElementById(id)?.textContent.trim();
  for (const e of document.querySelectorAll("a, button, input, select, section, dialog, [role=region], [role=img]")) {
    const by = e.getAttribute("aria-labelledby");
    if (by && by.split(" ").some((id) => !document.getElementById(id))) find("labelled by nothing", e);
    const name = e.getAttribute("aria-label") || (by && text(by)) || e.labels?.[0]?.textContent.trim() || (["A", "BUTTON"].includes(e.tagName) && e.textContent.trim());
    if (!name && (e.tagName !== "DIALOG" || e.open)) find("no name", e);
  }
  for (const e of document.querySelectorAll("img:not([alt])")) find("no alternative text", e);
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  ids.filter((id, i) => ids.indexOf(id) !== i).forEach((id) => findings.push(`two elements with the id ${id}`));
  if (!document.documentElement.lang || !document.title) findings.push("no language or no title");
  if (document.querySelectorAll("main").length !== 1 || document.querySelectorAll("h1").length !== 1) findings.push("not one main and one h1");

  // Headings go down by one.
  let level = 0;
  for (const e of document.querySelectorAll("h1, h2, h3, h4")) {
    if (e.closest("dialog:not([open])") || e.closest("[hidden]")) continue;
    const at = Number(e.tagName[1]);
    if (at > level + 1) find(`h${level} is followed by h${at}`, e);
    level = at;
  }
  for (const e of document.querySelectorAll("table")) {
    if (!e.caption || !e.querySelector("thead th[scope=col]") || !e.querySelector("tbody th[scope]")) find("a table without caption or headings", e);
  }
  for (const e of document.querySelectorAll("*")) {
    if (["auto", "scroll"].includes(getComputedStyle(e).overflowX) && e.scrollWidth > e.clientWidth + 1 && e.tabIndex < 0) find("scrolls, and not by the keyboard", e);
  }
  const { scrollWidth, clientWidth } = document.documentElement;
  if (scrollWidth > clientWidth) findings.push(`the page is ${scrollWidth} wide, and the window ${clientWidth}`);

  // Contrast (WCAG 2.2, 1.4.3), of what is text.
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const over = (colours) => {
    canvas.fillStyle = "#fff";
    canvas.fillRect(0, 0, 1, 1);
    for (const c of colours) {
      canvas.fillStyle = c;
      canvas.fillRect(0, 0, 1, 1);
    }
    return canvas.getImageData(0, 0, 1, 1).data;
  };
  const luminance = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const backdrop = (e) => {
    const colours = [];
    for (let at = e; at; at = at.parentElement) {
      if (at.namespaceURI.endsWith("svg") && at.tagName === "g") {
        const rect = at.querySelector(":scope > rect, :scope > circle");
        if (rect) colours.unshift(getComputedStyle(rect).fill);
      } else if (!at.namespaceURI.endsWith("svg")) {
        colours.unshift(getComputedStyle(at).backgroundColor);
      }
    }
    return colours;
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let measured = 0;
  for (let n = walker.nextNode(); n; n = walker.nextNode()) {
    const e = n.parentElement;
    if (!n.data.trim() || !seen(e) || ["TITLE", "SCRIPT"].includes(e.tagName)) continue;
    const style = getComputedStyle(e);
    const behind = backdrop(e);
    const [x, y] = [luminance(over([...behind, e.namespaceURI.endsWith("svg") ? style.fill : style.color])), luminance(over(behind))];
    const ratio = (Math.max(x, y) + 0.05) / (Math.min(x, y) + 0.05);
    measured++;
    if (ratio < 4.5) find(`contrast ${ratio.toFixed(2)}`, e);
  }
  if (measured < 20) findings.push(`only ${measured} texts were measured`);
  return findings;
})()
