// What is wrong with the slide on show, as sentences: run by tools/browser.py in the page.
() => {
  const WIDTH = 1280, HEIGHT = 720, SLACK = 1;
  const slide = Reveal.getCurrentSlide();
  const frame = slide.getBoundingClientRect();
  const scale = Reveal.getScale();
  const findings = [];
  const brief = (text) => JSON.stringify(text.trim().replace(/\s+/g, " ").slice(0, 60));
  const hidden = (element) => element.closest("aside.notes, mjx-container") !== null;
  const box = (thing) => {
    const rect = thing.getBoundingClientRect();
    return {
      left: (rect.left - frame.left) / scale, right: (rect.right - frame.left) / scale,
      top: (rect.top - frame.top) / scale, bottom: (rect.bottom - frame.top) / scale,
      width: rect.width / scale, height: rect.height / scale,
    };
  };

  // Everything that can be seen: lines of text, pictures, formulas.
  const seen = [];
  const walker = document.createTreeWalker(slide, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const parent = node.parentElement;
    if (!node.data.trim() || hidden(parent) || /^(SCRIPT|STYLE)$/.test(parent.tagName)) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    seen.push({ kind: "text", node, parent, name: brief(node.data), ...box(range) });
  }
  for (const element of slide.querySelectorAll("img, svg, canvas, video, mjx-container, iframe")) {
    if (element.tagName !== "MJX-CONTAINER" && hidden(element)) continue;
    if (element.closest("aside.notes")) continue;
    const picture = element.tagName === "IMG";
    const formula = element.tagName === "MJX-CONTAINER";
    const drawn = formula ? element.querySelector("svg") : element;
    if (drawn === null) findings.push("a formula without its picture");
    else seen.push({
      kind: formula ? "formula" : "picture", node: element, parent: element.parentElement,
      name: formula ? "a formula" : "a picture", ...box(drawn),
    });
    if (picture && !(element.complete && element.naturalWidth > 0))
      findings.push(`a broken picture: ${brief((element.getAttribute("src") || "").slice(0, 60))}`);
  }

  const lowest = Math.max(slide.scrollHeight, ...seen.map((part) => part.bottom));
  if (lowest > HEIGHT + SLACK) {
    const last = seen.filter((part) => part.bottom > HEIGHT + SLACK)[0];
    findings.push(
      `too tall: ${Math.ceil(lowest)} of ${HEIGHT} pixels` + (last ? `, from ${last.name} on` : ""));
  }
  for (const part of seen) {
    const pre = part.parent.closest("pre");
    if (part.right > WIDTH + SLACK || part.left < -SLACK)
      findings.push(`too wide: ${part.name} reaches ${Math.ceil(part.right)} of ${WIDTH} pixels`);
    else if (pre && part.right > box(pre.parentElement).right + SLACK)
      findings.push(`code wider than its box: ${part.name}`);
    if (part.kind !== "text") continue;
    for (let at = part.parent; at !== slide; at = at.parentElement) {
      const style = getComputedStyle(at), edge = box(at);
      if (/hidden|clip|auto|scroll/.test(style.overflowX + style.overflowY) &&
          (part.right > edge.right + SLACK || part.bottom > edge.bottom + SLACK))
        findings.push(`clipped: ${part.name}`);
    }
    const size = parseFloat(getComputedStyle(part.parent).fontSize);
    const output = part.parent.closest("pre, code, .jp-OutputArea-output");
    if (size < (output ? 18 : 24)) findings.push(`${part.name} is only ${size} pixels large`);
    if (/<[\w.]+ at 0x[0-9a-f]+>/.test(part.node.data))
      findings.push(`an object where a value was meant: ${part.name}`);
    if (!part.parent.closest("pre, code") &&
        /\$[^$]+\$|\\\(|\\\[|\\begin\{|\\[a-zA-Z]{2,}/.test(part.node.data))
      findings.push(`a formula that was not set: ${part.name}`);
  }
  for (const error of slide.querySelectorAll("[data-mml-node='merror'], mjx-merror"))
    findings.push(`a formula with an error: ${brief(error.getAttribute("data-mjx-error") || "")}`);

  const content = seen.filter((part) => !(part.kind === "text" && part.parent.closest("h1, h2, h3")));
  const first = Reveal.getIndices().h === 0 && (Reveal.getIndices().v || 0) === 0;
  if (!seen.length) findings.push("nothing on it");
  else if (!content.length && !first) findings.push("nothing on it but a heading");

  const heading = slide.querySelector("h1, h2, h3, strong");
  return {
    heading: heading ? heading.textContent.trim().slice(0, 50) : "",
    notes: slide.querySelectorAll("aside.notes").length,
    height: Math.ceil(Math.max(0, ...seen.map((part) => part.bottom))),
    findings,
  };
}
