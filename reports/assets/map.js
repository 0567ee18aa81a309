
/* ---- the map: two panels, one state ---- */

const SHAPES = { text: "circle", image: "diamond", audio: "square", video: "triangle-up" };
const HUES = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#b3a100", "#868f99"];
const OTHER = HUES.length - 1;
const PAGE = 10;

/** uint16 pairs -> [[x...], [y...]] in [-1, 1]. */
function points(text) {
  const raw = bytes(text);
  const view = new DataView(raw.buffer);
  const at = (i) => view.getUint16(i * 2, true) / 32767.5 - 1;
  const count = raw.length / 4;
  return [Float32Array.from({ length: count }, (_, i) => at(2 * i)), Float32Array.from({ length: count }, (_, i) => at(2 * i + 1))];
}

async function startMap(map, media) {
  const places = [...document.querySelectorAll("[data-map]")];
  if (!places.length) return;
  const { rows } = map;
  const kinds = Object.keys(SHAPES).filter((kind) => rows.some((row) => row.modality === kind));
  const groups = kinds.map((kind) => rows.flatMap((row, i) => (row.modality === kind ? [i] : [])));
  const partners = Map.groupBy ? Map.groupBy(rows.keys(), (i) => rows[i].id) : groupRows(rows);
  const sheet = media.sheet ? await createImageBitmap(new Blob([bytes(media.sheet)], { type: "image/webp" })) : null;
  const coarse = matchMedia("(pointer: coarse)").matches;
  const state = {
    layer: map.sites.length - 1,
    shown: new Set(kinds),
    by: "modality",
    selected: null, // a set of rows, or null for all
    kept: null, // the row in the card
    page: 0,
  };
  while (state.layer > 0 && !map.sites[state.layer].points.length) state.layer -= 1;
  const drawn = new Map(); // "layer panel" -> coordinates

  function coordinates(panel) {
    const key = `${state.layer} ${panel}`;
    if (!drawn.has(key)) drawn.set(key, points(map.sites[state.layer].points[panel]));
    return drawn.get(key);
  }

  function announce(text) {
    $("said").textContent = text;
  }

  /* -- colours -- */

  /** The row's value of the chosen label; undefined when it has none. */
  function valueOf(row) {
    const [source, name] = state.by.split(/:(.*)/s);
    return Object.hasOwn(row[source] ?? {}, name) ? row[source][name] : undefined;
  }

  /** Values of the chosen label, commonest first, each with a hue; the rest share one. */
  function palette() {
    const counts = new Map();
    for (const value of rows.map(valueOf)) {
      if (value !== undefined) counts.set(value, (counts.get(value) ?? 0) + 1);
    }
    const names = [...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)).map(([name]) => name);
    return new Map(names.map((name, i) => [name, HUES[Math.min(i, OTHER)]]));
  }

  function showLegend(hues) {
    const items = [];
    $("map-legend").hidden = state.by === "modality"; // the toggles wear the colours already
    if (state.by !== "modality") {
      const named = [...hues].slice(0, hues.size > HUES.length ? OTHER : HUES.length);
      if (hues.size > HUES.length) named.push([`${hues.size - OTHER} others`, HUES[OTHER]]);
      for (const [name, hue] of named) {
        const item = make("li", name);
        const swatch = make("span", "", { class: "swatch m-text", "aria-hidden": "true" });
        swatch.style.background = hue;
        item.prepend(swatch);
        items.push(item);
      }
      items.push(make("li", "pale: has no such label; the shape tells the modality"));
    }
    $("map-legend").replaceChildren(...items);
  }

  /* -- panels -- */

  function trace(kind, members, xs, ys, hues) {
    const chosen = state.selected;
    return {
      type: "scatter",
      mode: "markers",
      name: kind,
      visible: state.shown.has(kind),
      x: members.map((i) => xs[i]),
      y: members.map((i) => ys[i]),
      customdata: members,
      hoverinfo: "none",
      marker: {
        symbol: SHAPES[kind],
        size: rows.length > 900 ? 6 : 8,
        opacity: 0.75,
        color: state.by === "modality" ? `@${kind}` : members.map((i) => hues.get(valueOf(rows[i])) ?? colour("grid")),
        line: { width: 0.5, color: "@panel" },
      },
      selected: { marker: { opacity: 0.95 } },
      unselected: { marker: { opacity: 0.08 } },
      ...(chosen ? { selectedpoints: members.flatMap((i, at) => (chosen.has(i) ? [at] : [])) } : {}),
    };
  }

  /** Rings around the kept sample and its views in other modalities, joined by a line. */
  function rings(xs, ys) {
    if (state.kept === null) return [];
    const views = partners.get(rows[state.kept].id).filter((i) => state.shown.has(rows[i].modality));
    const joined = [state.kept, ...views.filter((i) => i !== state.kept)].flatMap((i) => [state.kept, i]);
    return [{
      type: "scatter",
      mode: "lines+markers",
      x: joined.map((i) => xs[i]),
      y: joined.map((i) => ys[i]),
      hoverinfo: "skip",
      line: { color: "@ink", width: 1.5, dash: "dot" },
      marker: { symbol: "circle-open", size: 16, color: "@ink", line: { width: 2, color: "@ink" } },
    }];
  }

  function panelFigure(panel) {
    const hues = palette();
    const empty = !map.sites[state.layer].points.length;
    const [xs, ys] = empty ? [[], []] : coordinates(panel);
    const edge = { range: [-1.06, 1.06], visible: false, fixedrange: coarse };
    return {
      data: empty ? [] : [...kinds.map((kind, k) => trace(kind, groups[k], xs, ys, hues)), ...rings(xs, ys)],
      layout: {
        paper_bgcolor: "rgba(0,0,0,0)",
        plot_bgcolor: "rgba(0,0,0,0)",
        font: { size: 12, color: "@soft" },
        margin: { l: 2, r: 2, t: 2, b: 2 },
        xaxis: { ...edge },
        yaxis: { ...edge },
        showlegend: false,
        hovermode: "closest",
        hoverdistance: 12,
        dragmode: coarse ? false : "lasso",
        uirevision: "map",
        selectionrevision: String(state.selected ? state.selected.size : 0),
        annotations: empty ? [{ text: "no map at this site", showarrow: false, x: 0, y: 0, font: { size: 13 } }] : [],
        newselection: { line: { color: "@ink", width: 1.2, dash: "dot" } },
        modebar: { bgcolor: "rgba(0,0,0,0)", color: "@faint", activecolor: "@ink" },
      },
    };
  }

  const config = { ...CONFIG, doubleClick: "reset", modeBarButtonsToRemove: ["autoScale2d", "zoomIn2d", "zoomOut2d", "select2d"] };
  const show = () => Promise.all(places.map((place, panel) => draw(place, panelFigure(panel), config)));

  /* -- the card -- */

  function thumbnail(index, caption) {
    const at = media.thumbnails[index];
    if (at === undefined || !sheet) return null;
    const canvas = make("canvas", "", { role: "img", "aria-label": caption || "Picture of the sample" });
    canvas.width = canvas.height = media.side;
    const x = (at % media.columns) * media.side;
    const y = Math.floor(at / media.columns) * media.side;
    canvas.getContext("2d").drawImage(sheet, x, y, media.side, media.side, 0, 0, media.side, media.side);
    return canvas;
  }

  function player(index, caption) {
    const sound = media.sounds[index];
    if (!sound) return null;
    const audio = make("audio", "", { controls: "", preload: "metadata", "aria-label": caption || "Sound of the sample" });
    audio.src = URL.createObjectURL(new Blob([bytes(sound)], { type: "audio/wav" }));
    return audio;
  }

  function facts(row) {
    const list = make("dl");
    for (const [labels, suffix] of [[row.labels, ""], [row.controls, " (control)"]]) {
      for (const [name, value] of Object.entries(labels)) list.append(make("dt", name + suffix), make("dd", value));
    }
    return list;
  }

  function showCard(i) {
    const body = $("card-body");
    for (const audio of body.querySelectorAll("audio")) URL.revokeObjectURL(audio.src);
    $("card-hint").hidden = i !== null;
    body.hidden = i === null;
    if (i === null) return body.replaceChildren();
    const row = rows[i];
    const kind = make("span", row.modality, { class: "named" });
    kind.prepend(make("span", "", { class: `swatch m-${row.modality}`, "aria-hidden": "true" }));
    const views = partners.get(row.id);
    const caption = make("p", row.caption || "no caption", { class: "caption", dir: "auto" });
    const id = make("p", "", { class: "id" });
    id.append(make("bdi", row.id));
    const also = views.filter((j) => j !== i).map((j) => rows[j].modality);
    if (also.length) id.append(`, also seen as ${also.join(", ")}`);
    const parts = views.flatMap((j) => [thumbnail(rows[j].index, row.caption), player(rows[j].index, row.caption)]);
    body.replaceChildren(kind, caption, ...parts.filter(Boolean), facts(row), id);
  }

  function keep(i) {
    state.kept = i;
    showCard(i);
    announce(i === null ? "No sample kept." : `${rows[i].modality} sample: ${rows[i].caption || rows[i].id}`);
    markTable();
    return show();
  }

  /* -- the table -- */

  function found() {
    const wanted = $("find").value.trim().toLowerCase();
    return [...rows.keys()].filter((i) => {
      const row = rows[i];
      if (!state.shown.has(row.modality) || (state.selected && !state.selected.has(i))) return false;
      const text = [row.id, row.caption, ...Object.values(row.labels), ...Object.values(row.controls)].join(" ");
      return text.toLowerCase().includes(wanted);
    });
  }

  function markTable() {
    for (const line of $("point-rows").children) {
      if (Number(line.dataset.row) === state.kept) line.setAttribute("aria-current", "true");
      else line.removeAttribute("aria-current");
    }
  }

  function showTable() {
    const all = found();
    const pages = Math.max(1, Math.ceil(all.length / PAGE));
    state.page = Math.min(state.page, pages - 1);
    const lines = all.slice(state.page * PAGE, (state.page + 1) * PAGE).map((i) => {
      const line = make("tr", "", { "data-row": i });
      const button = make("button", rows[i].id, { type: "button" });
      button.addEventListener("click", () => keep(i));
      const name = make("th", "", { scope: "row" });
      name.append(button);
      line.append(name, make("td", rows[i].modality), make("td", rows[i].caption, { dir: "auto" }));
      return line;
    });
    $("point-rows").replaceChildren(...lines);
    $("found").textContent = all.length ? `${all.length} samples, page ${state.page + 1} of ${pages}` : "No sample matches.";
    $("earlier").disabled = state.page === 0;
    $("later").disabled = state.page >= pages - 1;
    $("clear").disabled = !state.selected;
    markTable();
  }

  function select(chosen) {
    state.selected = chosen;
    state.page = 0;
    showTable();
    if (chosen) {
      const counts = kinds.map((kind) => `${kind} ${[...chosen].filter((i) => rows[i].modality === kind).length}`);
      announce(`${chosen.size} samples selected: ${counts.join(", ")}.`);
      $("points").open = true;
    } else announce("Selection cleared.");
    return show();
  }

  function savePoints() {
    const names = ["id", "modality", "caption", "site"];
    const panels = map.checkpoints.map((_, panel) => (map.sites[state.layer].points.length ? coordinates(panel) : null));
    const head = [...names, ...panels.flatMap((_, p) => [`${p ? "after" : "before"}_x`, `${p ? "after" : "before"}_y`])];
    const lines = found().map((i) => [
      rows[i].id, rows[i].modality, rows[i].caption, map.sites[state.layer].title,
      ...panels.flatMap((p) => (p ? [p[0][i], p[1][i]] : ["", ""])),
    ]);
    save("samples.csv", "text/csv", [head, ...lines].map((l) => l.map(cell).join(",")).join("\n") + "\n");
  }

  /* -- controls -- */

  function showLayer() {
    const site = map.sites[state.layer];
    const share = site.points.length ? `, axes carry ${site.explained[0]} % and ${site.explained[1]} % of the variance` : "";
    $("layer").value = state.layer;
    $("layer-name").textContent = site.title;
    $("layer").setAttribute("aria-valuetext", site.title + share);
    $("layer-note").hidden = Boolean(site.points.length);
    $("layer-note").textContent = site.points.length ? "" : `${site.title}: ${site.note}.`;
  }

  $("layer").addEventListener("input", () => {
    state.layer = Number($("layer").value);
    showLayer();
    requestAnimationFrame(show);
  });
  for (const kind of kinds) {
    const label = make("label");
    const box = make("input", "", { type: "checkbox", value: kind });
    box.checked = true;
    box.addEventListener("change", () => {
      if (box.checked) state.shown.add(kind);
      else state.shown.delete(kind);
      showTable();
      show();
    });
    label.append(box, make("span", "", { class: `swatch m-${kind}`, "aria-hidden": "true" }), kind);
    $("kinds").append(label);
  }
  const choices = new Map([["modality", "modality"]]);
  for (const row of rows) {
    for (const name of Object.keys(row.labels)) choices.set(`labels:${name}`, name);
    for (const name of Object.keys(row.controls)) choices.set(`controls:${name}`, `${name} (control)`);
  }
  for (const [value, name] of choices) {
    const option = make("option", name);
    option.value = value;
    $("colour").append(option);
  }
  $("colour").addEventListener("change", () => {
    state.by = $("colour").value;
    showLegend(palette());
    show();
  });
  $("find").addEventListener("input", () => {
    state.page = 0;
    showTable();
  });
  $("earlier").addEventListener("click", () => { state.page -= 1; showTable(); });
  $("later").addEventListener("click", () => { state.page += 1; showTable(); });
  $("clear").addEventListener("click", () => select(null));
  $("save-points").addEventListener("click", savePoints);

  $("map-live").hidden = false;
  showLayer();
  showLegend(palette());
  showTable();
  for (const host of await show()) {
    const row = ({ points: [point] }) => point?.customdata;
    host.on("plotly_hover", (event) => { if (row(event) !== undefined) showCard(row(event)); });
    host.on("plotly_unhover", () => showCard(state.kept));
    host.on("plotly_click", (event) => { if (row(event) !== undefined) keep(row(event)); });
    host.on("plotly_selected", (event) => {
      if (event?.points?.length) select(new Set(event.points.map((point) => point.customdata)));
    });
    host.on("plotly_deselect", () => select(null));
  }
  redraw.add(show);
}

/** Rows by id, for browsers without Map.groupBy. */
function groupRows(rows) {
  const groups = new Map();
  rows.forEach((row, i) => groups.set(row.id, [...(groups.get(row.id) ?? []), i]));
  return groups;
}
