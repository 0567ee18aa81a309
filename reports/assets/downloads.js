
/* ---- what can be taken away: numbers as JSON and CSV, figures as SVG and PNG ---- */

/** Records as CSV; one level of nesting becomes outer_inner, an absent one stays empty. */
function csvTable(records) {
  const flat = records.map((record) => Object.fromEntries(
    Object.entries(record).flatMap(([name, value]) => (value !== null && typeof value === "object" && !Array.isArray(value)
      ? Object.entries(value).map(([inner, own]) => [`${name}_${inner}`, own])
      : [[name, value]])),
  ));
  const names = [...new Set(flat.flatMap(Object.keys))];
  const partial = new Set(names.filter((name) => names.some((other) => other.startsWith(`${name}_`)) && flat.every((r) => r[name] == null)));
  const kept = names.filter((name) => !partial.has(name));
  const lines = flat.map((record) => kept.map((name) => cell(record[name] ?? "")).join(","));
  return [kept.map(cell).join(","), ...lines].join("\n") + "\n";
}

function startDownloads(report) {
  const { analysis } = report;
  const tables = {
    measurements: analysis.measurements,
    differences: [...analysis.differences, ...analysis.probe_differences],
    transfers: analysis.transfers,
    bindings: analysis.bindings,
    drifts: analysis.drifts,
    probes: analysis.probes,
    verdicts: analysis.verdicts,
  };
  const offer = (name, type, content) => {
    const button = make("button", `Save ${name}`, { type: "button" });
    button.addEventListener("click", () => save(name, type, content()));
    $("downloads").append(button);
  };
  offer("report.json", "application/json", () => `${JSON.stringify(report, null, 1)}\n`);
  for (const [name, records] of Object.entries(tables)) {
    if (records?.length) offer(`${name}.csv`, "text/csv", () => csvTable(records));
  }
}

/* ---- the same for one figure: a small menu beside its title ---- */

const slug = (text) => text.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-+|-+$/g, "").slice(0, 80) || "figure";

/** An arrow into a tray. */
function saveIcon() {
  const svg = icon("M10 3v8.5M6.6 8.4 10 11.8l3.4-3.4M4 14v2.6h12V14");
  svg.firstChild.setAttribute("fill", "none");
  svg.firstChild.setAttribute("stroke", "currentColor");
  svg.firstChild.setAttribute("stroke-width", "1.6");
  return svg;
}

/** A menu in a caption. `ways`: "SVG", "PNG", "CSV", "JSON" -> what saves it; one tab stop until it is open. */
function offerSaves(caption, label, ways) {
  const fold = make("details", "", { class: "saves" });
  const opener = make("summary", "", { "aria-label": `Save ${label}`, title: "Save" });
  opener.append(saveIcon());
  const list = make("span", "", { class: "ways" });
  for (const [name, way] of Object.entries(ways)) {
    const button = make("button", name, { type: "button", class: "quiet" });
    button.addEventListener("click", () => {
      Promise.resolve(way()).then(() => say(`Saved as ${name}.`), () => say(`${name} could not be made.`));
      fold.open = false;
      opener.focus();
    });
    list.append(button);
  }
  fold.append(opener, list);
  fold.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !fold.open) return;
    event.stopPropagation();
    fold.open = false;
    opener.focus();
  });
  fold.addEventListener("focusout", ({ relatedTarget }) => {
    if (!fold.contains(relatedTarget)) fold.open = false;
  });
  caption.append(fold);
  return fold;
}

/** CSV and JSON of records, by that name. */
function recordWays(name, records) {
  return {
    CSV: () => save(`${name}.csv`, "text/csv", csvTable(records())),
    JSON: () => save(`${name}.json`, "application/json", `${JSON.stringify(records(), null, 1)}\n`),
  };
}

/** What a drawn figure shows, for figures that are not made from records of the analysis. */
function drawnRecords(figure) {
  return figure.data.flatMap(({ name, x = [], y = [], error_y: error }) => Array.from(x, (at, i) => ({
    series: name ?? "", x: at, y: y[i] ?? null,
    ...(error ? { low: y[i] - error.arrayminus[i], high: y[i] + error.array[i] } : {}),
  })));
}

/** A figure of the plotting library, as it is seen, on its own ground. */
function offerFigure(place) {
  const caption = place.closest("figure")?.querySelector("figcaption");
  if (!caption) return;
  const label = place.dataset.label ?? "the figure";
  const picture = (format) => async () => {
    const host = await drawNow(place);
    const { width, height } = host.getBoundingClientRect();
    const ground = { paper_bgcolor: colour("panel"), plot_bgcolor: colour("panel"), width, height };
    const figure = { data: host.data, layout: { ...host.layout, ...ground }, config: { ...CONFIG } };
    return Plotly.downloadImage(figure, { format, filename: slug(label), width, height, scale: format === "png" ? 3 : 1 });
  };
  const records = () => place.records?.() ?? drawnRecords(makers.get(place)());
  offerSaves(caption, label, { SVG: picture("svg"), PNG: picture("png"), ...recordWays(slug(label), records) });
}
