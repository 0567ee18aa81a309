
/* ---- what is seen as an SVG: tables that are pictures, and pictures as PNG ---- */

const escaped = (text) => text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);
const pixel = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });
const plainInks = new Map();

/** Any colour of a style sheet as [#rrggbb, opacity], which every program reads. */
function plainInk(text) {
  if (!plainInks.has(text)) {
    pixel.clearRect(0, 0, 1, 1);
    pixel.fillStyle = text;
    pixel.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = pixel.getImageData(0, 0, 1, 1).data;
    plainInks.set(text, [`#${[r, g, b].map((c) => c.toString(16).padStart(2, "0")).join("")}`, a / 255]);
  }
  return plainInks.get(text);
}

/** The words of a text node, line by line, each where it stands. */
function textLines(node) {
  const range = document.createRange();
  const lines = [];
  for (const word of node.data.matchAll(/\S+/g)) {
    range.setStart(node, word.index);
    range.setEnd(node, word.index + word[0].length);
    const box = range.getBoundingClientRect();
    if (!box.width) continue;
    const last = lines.at(-1);
    if (last && Math.abs(last.box.top - box.top) < 2) last.text += ` ${word[0]}`;
    else lines.push({ box, text: word[0] });
  }
  return lines;
}

/** An element as SVG text: its grounds, its edges and its words; `left` out is what is not a picture. */
function pictureOf(element, left = ".sr, .saves, .field, .live:not(#heat-live)") {
  const whole = element.getBoundingClientRect();
  const room = 12, parts = [];
  const [x0, y0] = [whole.left - room, whole.top - room];
  const walk = (node) => {
    if (node.nodeType === Node.TEXT_NODE) {
      const { color, fontSize, fontWeight } = getComputedStyle(node.parentElement);
      for (const { box, text } of textLines(node)) {
        parts.push(`<text x="${(box.left - x0).toFixed(1)}" y="${(box.top - y0 + box.height * 0.79).toFixed(1)}" font-size="${parseFloat(fontSize)}" font-weight="${fontWeight}" fill="${plainInk(color)[0]}">${escaped(text)}</text>`);
      }
      return;
    }
    if (node.nodeType !== Node.ELEMENT_NODE || (node !== element && node.matches(left))) return;
    const style = getComputedStyle(node);
    if (style.display === "none" || style.visibility === "hidden") return;
    const [ink, cover] = plainInk(style.backgroundColor);
    const edge = parseFloat(style.borderTopWidth) && style.borderTopStyle !== "none" && style.borderLeftStyle !== "none" ? parseFloat(style.borderTopWidth) : 0;
    if (node !== element && (cover || edge)) {
      const turned = style.rotate !== "none"; // its box is larger than itself
      const box = node.getBoundingClientRect();
      const [w, h] = turned ? [node.offsetWidth, node.offsetHeight] : [box.width, box.height];
      const [cx, cy] = [box.left + box.width / 2 - x0, box.top + box.height / 2 - y0];
      const radius = style.borderTopLeftRadius.endsWith("%") ? w / 2 : Math.min(parseFloat(style.borderTopLeftRadius), w / 2);
      parts.push(`<rect x="${(cx - w / 2 + edge / 2).toFixed(1)}" y="${(cy - h / 2 + edge / 2).toFixed(1)}" width="${(w - edge).toFixed(1)}" height="${(h - edge).toFixed(1)}" rx="${radius.toFixed(1)}" fill="${ink}" fill-opacity="${cover.toFixed(2)}"${edge ? ` stroke="${plainInk(style.borderTopColor)[0]}" stroke-width="${edge}"` : ""}${turned ? ` transform="rotate(${parseFloat(style.rotate)} ${cx.toFixed(1)} ${cy.toFixed(1)})"` : ""}/>`);
    }
    for (const inner of node.childNodes) walk(inner);
  };
  walk(element);
  return svgPage(whole.width + 2 * room, whole.height + 2 * room, parts.join(""));
}

/** A drawing of that size on the ground of a panel. */
function svgPage(width, height, body) {
  const size = `viewBox="0 0 ${width.toFixed(0)} ${height.toFixed(0)}" width="${width.toFixed(0)}" height="${height.toFixed(0)}"`;
  return `<svg xmlns="http://www.w3.org/2000/svg" ${size} font-family="system-ui, sans-serif"><rect width="100%" height="100%" fill="${plainInk(colour("panel"))[0]}"/>${body}</svg>`;
}

/** An SVG text as a PNG of three times its size. */
async function pngOf(svg) {
  const image = new Image();
  const address = URL.createObjectURL(new Blob([svg], { type: "image/svg+xml" }));
  try {
    await new Promise((resolve, reject) => {
      image.onload = resolve;
      image.onerror = () => reject(new Error("the drawing could not be read"));
      image.src = address;
    });
    const canvas = Object.assign(document.createElement("canvas"), { width: image.width * 3, height: image.height * 3 });
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    return await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  } finally {
    URL.revokeObjectURL(address);
  }
}

/** SVG and PNG of what `drawn` gives as SVG text. */
function pictureWays(name, drawn) {
  return {
    SVG: () => save(`${name}.svg`, "image/svg+xml", drawn()),
    PNG: async () => save(`${name}.png`, "image/png", await pngOf(drawn())),
  };
}

/** Probe matrices are pictures too. */
function startMatrices(analysis) {
  for (const panel of document.querySelectorAll(".matrix[data-attribute]")) {
    const { attribute, site } = panel.dataset;
    const name = slug(`probes ${attribute}`);
    const records = () => recordsOf(analysis, ["probes", { attribute, site }]);
    offerSaves(panel.querySelector(".tools"), `probes of ${attribute}`, { ...pictureWays(name, () => pictureOf(panel.querySelector("table"))), ...recordWays(name, records) });
  }
}
