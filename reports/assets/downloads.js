
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

function startDownloads(text) {
  const { analysis } = JSON.parse(text);
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
  offer("report.json", "application/json", () => text);
  for (const [name, records] of Object.entries(tables)) {
    if (records?.length) offer(`${name}.csv`, "text/csv", () => csvTable(records));
  }
}

/** Two small buttons beside a figure's title: the figure as it is seen, on its own ground. */
function offerFigure(place, host) {
  const caption = place.closest("figure")?.querySelector("figcaption");
  if (!caption || caption.querySelector(".saves")) return;
  const group = make("span", "", { class: "saves", role: "group", "aria-label": `Save ${place.dataset.label ?? "the figure"}` });
  for (const format of ["svg", "png"]) {
    const button = make("button", format.toUpperCase(), { type: "button", class: "quiet" });
    button.addEventListener("click", () => {
      const { width, height } = host.getBoundingClientRect();
      const ground = { paper_bgcolor: colour("panel"), plot_bgcolor: colour("panel"), width, height };
      const figure = { data: host.data, layout: { ...host.layout, ...ground }, config: { ...CONFIG } };
      Plotly.downloadImage(figure, { format, filename: place.id, width, height, scale: format === "png" ? 3 : 1 });
    });
    group.append(button);
  }
  caption.append(group);
}
