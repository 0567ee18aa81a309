"use strict";
/* Unpacks the page's data, draws the figures when they come into view, and keeps the theme.
   Text from data enters the document through textContent only. */

const CONFIG = {
  displaylogo: false,
  showSendToCloud: false,
  plotlyServerURL: "",
  responsive: true,
  displayModeBar: "hover",
  modeBarButtonsToRemove: ["zoomIn2d", "zoomOut2d", "autoScale2d", "select2d", "lasso2d", "pan2d", "zoom2d"],
};

const $ = (id) => document.getElementById(id);
const root = document.documentElement;

/** An element with text and attributes. */
function make(tag, text = "", attributes = {}) {
  const node = document.createElement(tag);
  if (text) node.textContent = text;
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

/** base64 -> bytes. */
function bytes(text) {
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}

const LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%.()*+-;,=/?@^_:{|}~";

/** base 85 -> bytes: five letters are four bytes. */
function dense(text) {
  const digit = new Uint8Array(128).fill(84);
  for (let i = 0; i < 85; i += 1) digit[LETTERS.charCodeAt(i)] = i;
  const missing = (5 - (text.length % 5)) % 5;
  const raw = new DataView(new ArrayBuffer(((text.length + missing) / 5) * 4));
  for (let at = 0, to = 0; at < text.length; at += 5, to += 4) {
    let value = 0;
    for (let i = at; i < at + 5; i += 1) value = value * 85 + (i < text.length ? digit[text.charCodeAt(i)] : 84);
    raw.setUint32(to, value);
  }
  return new Uint8Array(raw.buffer, 0, raw.byteLength - missing);
}

/** The gzip text of a data script, unpacked. */
async function unpack(id) {
  const packed = new Blob([dense($(id).textContent)]).stream();
  return new Response(packed.pipeThrough(new DecompressionStream("gzip"))).text();
}

/** Load the plotting library from the page itself. */
function loadPlotly(source) {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
    script.onload = resolve;
    script.onerror = () => reject(new Error("the plotting library did not load"));
    document.head.append(script);
  });
}

/** Offer text as a file. */
function save(name, type, text) {
  const link = make("a", "", { download: name });
  link.href = URL.createObjectURL(new Blob([text], { type: `${type};charset=utf-8` }));
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

/** A cell of a CSV file; text that a spreadsheet would run as a formula gets a leading quote. */
function cell(value) {
  if (typeof value === "number") return String(value);
  const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/* ---- theme ---- */

const probe = make("span");
const ink = new Map();

/** The theme's colour of that name, as rgb. */
function colour(name) {
  if (!ink.has(name)) {
    probe.style.color = `var(--${name})`;
    ink.set(name, getComputedStyle(probe).color);
  }
  return ink.get(name);
}

/** "@name" or "@name/opacity" -> a colour; anything else as it is. */
function resolve(value) {
  const [, name, opacity] = /^@([a-z]+)(?:\/([\d.]+))?$/.exec(value) ?? [];
  if (!name) return value;
  return opacity ? colour(name).replace("rgb(", "rgba(").replace(")", `, ${opacity})`) : colour(name);
}

/** A copy of a figure in the theme's colours, its text and margins at the page's size. */
function themed(value, key = "") {
  if (Array.isArray(value)) return value.map((inner) => themed(inner, key));
  if (value && typeof value === "object") {
    const scale = key === "font" || key === "margin" ? parseFloat(getComputedStyle(root).fontSize) / 16 : 1;
    return Object.fromEntries(
      Object.entries(value).map(([name, inner]) => [
        name,
        scale !== 1 && typeof inner === "number" ? inner * scale : themed(inner, name),
      ]),
    );
  }
  return typeof value === "string" && key.toLowerCase().endsWith("color") ? resolve(value) : value;
}

const redraw = new Set();

function setTheme(theme) {
  root.dataset.theme = theme;
  try {
    localStorage.setItem("geomkit-theme", theme);
  } catch {
    /* a browser may keep nothing for local files */
  }
  onTheme();
}

function onTheme() {
  ink.clear();
  for (const draw of redraw) draw();
}

function startTheme() {
  document.body.append(probe);
  probe.hidden = true;
  const system = matchMedia("(prefers-color-scheme: dark)");
  let kept = null;
  try {
    kept = localStorage.getItem("geomkit-theme");
  } catch {
    /* as above */
  }
  if (kept === "light" || kept === "dark") root.dataset.theme = kept;
  $("theme").addEventListener("click", () => {
    const now = root.dataset.theme ?? (system.matches ? "dark" : "light");
    setTheme(now === "dark" ? "light" : "dark");
  });
  system.addEventListener("change", onTheme);
}

/* ---- figures ---- */

/** Put a live figure over the still one. */
function draw(place, figure, config = CONFIG) {
  const host = place.querySelector(".draw") ?? make("div", "", { class: "draw" });
  if (!host.isConnected) place.append(host);
  const { data, layout } = themed(figure);
  const family = getComputedStyle(document.body).fontFamily;
  layout.font = { ...layout.font, family };
  layout.hoverlabel = { ...layout.hoverlabel, font: { ...layout.hoverlabel?.font, family } };
  const options = { ...config, toImageButtonOptions: { format: "svg", filename: place.id } };
  return Plotly.react(host, data, { ...layout, autosize: true }, options).then(() => {
    place.classList.add("drawn");
    place.querySelector(".static")?.setAttribute("aria-hidden", "true");
    offerFigure(place, host);
    host.setAttribute("role", "group");
    host.setAttribute("aria-label", place.dataset.label ?? "Interactive figure");
    return host;
  });
}

/** Draw each figure when it is about to be seen. */
function startFigures(figures) {
  const watch = new IntersectionObserver(
    (entries) => {
      for (const { isIntersecting, target } of entries) {
        if (!isIntersecting) continue;
        watch.unobserve(target);
        const show = () => draw(target, figures[target.dataset.figure]);
        show();
        redraw.add(show);
      }
    },
    { rootMargin: "400px" },
  );
  for (const place of document.querySelectorAll("[data-figure]")) watch.observe(place);
}

/* ---- the rest of the page ---- */

/** Mark the section in view in the navigation. */
function startNavigation() {
  const links = new Map([...document.querySelectorAll(".bar nav a")].map((a) => [a.hash.slice(1), a]));
  const watch = new IntersectionObserver(
    (entries) => {
      for (const { isIntersecting, target } of entries) {
        const link = links.get(target.id);
        if (isIntersecting) link.setAttribute("aria-current", "true");
        else link.removeAttribute("aria-current");
      }
    },
    { rootMargin: "-30% 0px -69% 0px" },
  );
  for (const section of document.querySelectorAll("main > section")) watch.observe(section);
}

/** Folded tables are printed open. */
function startPrint() {
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details.numbers:not([open]):not(.live)")];
    for (const fold of opened) fold.open = true;
  });
  addEventListener("afterprint", () => {
    for (const fold of opened) fold.open = false;
  });
}

/** While a run is watched the page is written anew: load it again, unless somebody is reading on. */
function startRefresh() {
  const every = Number(root.dataset.refresh) * 1000;
  if (!every) return;
  let used = 0;
  for (const name of ["pointerdown", "keydown", "input"]) addEventListener(name, () => { used = Date.now(); });
  setInterval(() => {
    const playing = [...document.querySelectorAll("audio")].some((audio) => !audio.paused);
    if (!playing && Date.now() - used > 3 * every) location.reload();
  }, every);
}

async function start() {
  root.classList.add("on");
  startTheme();
  startNavigation();
  startPrint();
  try {
    const data = JSON.parse(await unpack("data"));
    startDownloads(data.report);
    startHeat(data.heat);
    await loadPlotly(await unpack("plotly"));
    startFigures(data.figures);
    if (data.map) {
      await startMap(data.map, data.media);
      startPairs(JSON.parse(data.report), data.map);
    }
    startGallery(data.media);
  } catch (error) {
    $("trouble").textContent = `Some figures stay still in this browser (${error.message}).`;
  }
  root.dataset.ready = "true";
  startRefresh();
}

addEventListener("DOMContentLoaded", start);
