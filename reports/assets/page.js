"use strict";
/* Draws the figures when they come into view, and keeps the theme.
   Text from data enters the document through textContent only. */

const CONFIG = {
  displaylogo: false,
  showSendToCloud: false,
  plotlyServerURL: "",
  responsive: true,
  displayModeBar: false, // every figure has its own way to be saved, in the page's tab order
};

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

/** Offer text, or a blob, as a file. */
function save(name, type, content) {
  const link = make("a", "", { download: name });
  link.href = URL.createObjectURL(typeof content === "string" ? new Blob([content], { type: `${type};charset=utf-8` }) : content);
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

let saying = 0;

/** Have a screen reader say something, once and when it has a pause: the last of what comes together. */
function say(text, wait = 80) {
  clearTimeout(saying);
  $("said").textContent = "";
  saying = setTimeout(() => { $("said").textContent = text; }, wait);
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
  $("theme").addEventListener("click", () => {
    const now = root.dataset.theme ?? (system.matches ? "dark" : "light");
    setTheme(now === "dark" ? "light" : "dark");
  });
  system.addEventListener("change", onTheme);
}

/* ---- figures ---- */

/** A layout on the page's own ground, and an axis with a faint grid and no line. */
const baseLayout = (own) => ({
  paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false,
  font: { color: "@soft", size: 12 },
  hoverlabel: { bgcolor: "@panel", bordercolor: "@line", align: "left", font: { color: "@ink", size: 13 } },
  ...own,
});
const baseAxis = (own) => ({ gridcolor: "@grid", zeroline: false, zerolinecolor: "@soft", ticks: "", exponentformat: "e", ...own });

/** Put a live figure over the still one. */
function draw(place, figure, config = CONFIG) {
  const host = place.querySelector(".draw") ?? make("div", "", { class: "draw", role: "group", "aria-label": place.dataset.label ?? "Interactive figure" });
  if (!host.isConnected) place.append(host);
  const { data, layout } = themed(figure);
  const family = getComputedStyle(document.body).fontFamily;
  layout.font = { ...layout.font, family };
  layout.hoverlabel = { ...layout.hoverlabel, font: { ...layout.hoverlabel?.font, family } };
  // A finger that drags must scroll the page.
  if (matchMedia("(pointer: coarse)").matches) layout.dragmode = false;
  return Plotly.react(host, data, { ...layout, autosize: true }, config).then(() => {
    place.classList.add("drawn");
    place.querySelector(".static")?.setAttribute("aria-hidden", "true");
    return host;
  });
}

const makers = new Map(); // place -> the figure that belongs there

const seen = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    seen.unobserve(target);
    redraw.add(() => drawNow(target));
    drawNow(target);
  }
}, { rootMargin: "400px" });

const drawNow = (place) => draw(place, makers.get(place)());

/** Draw a figure when it is about to be seen, and offer to save it. */
function drawWhenSeen(place, maker) {
  makers.set(place, maker);
  seen.observe(place);
  offerFigure(place);
}

function startFigures(figures, sources, analysis) {
  for (const place of document.querySelectorAll("[data-figure]")) {
    const key = place.dataset.figure;
    if (!figures[key]) continue;
    if (sources[key]) place.records = () => sources[key].flatMap((source) => recordsOf(analysis, source));
    drawWhenSeen(place, () => figures[key]);
  }
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

/** What is folded is printed open; the style sheet does the same where no script runs. */
function startPrint() {
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("main details:not([open]):not(.live):not(.saves)")];
    for (const fold of opened) {
      fold.made?.();
      fold.open = true;
    }
  });
  addEventListener("afterprint", () => {
    for (const fold of opened) fold.open = false;
  });
}

/** What scrolls sideways is a stop for the keyboard; what does not is none. */
function startScrolling() {
  const fit = (box) => {
    if (box.scrollWidth > box.clientWidth + 1) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  };
  const watch = new ResizeObserver((entries) => { for (const { target } of entries) fit(target); });
  for (const box of document.querySelectorAll(".scroll[tabindex='0']")) watch.observe(box);
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
  startTheme();
  startNavigation();
  startPrint();
  startScrolling();
  try {
    const data = JSON.parse(await unpack("data"));
    const report = unpackReport(data.report, data.packed);
    startDownloads(report);
    startHeat(data.heat, report.analysis, data.curves);
    await run(await unpack("plotly"));
    startFigures(data.figures, data.sources, report.analysis);
    startCurves(report.analysis, data.curves);
    startMatrices(report.analysis);
    if (data.map) {
      await startMap(data.map, data.media);
      startPairs(report, data.map);
    }
    startGallery(data.media);
  } catch (error) {
    $("trouble").textContent = `Some figures stay still in this browser (${error.message}).`;
  }
  root.dataset.ready = "true";
  startRefresh();
}
