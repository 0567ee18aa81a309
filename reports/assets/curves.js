
/* ---- curves over the sites: figures and tables from the records, when they are looked at ---- */

const BETWEEN_DASHES = ["solid", "dot", "dashdot", "longdash"];
const SYMBOLS = { text: "circle", image: "diamond", audio: "square", video: "triangle-up" };

/** Text that plotly shows as it is. */
function plain(text, limit = 80) {
  const cut = text.length > limit ? `${text.slice(0, limit - 1)}\u2026` : text;
  return cut.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

/** Measurements and differences by what they are of; drifts among them as "drift:<metric>". */
function fileRecords({ measurements, differences, drifts }, { before, after }) {
  const key = (...parts) => JSON.stringify(parts);
  const values = new Map(), changes = new Map();
  for (const m of measurements) values.set(key(m.metric, m.modality, m.site, m.checkpoint), m);
  for (const d of drifts) {
    if (d.before === before) values.set(key(`drift:${d.metric}`, d.modality, d.site, d.after), { ...d, checkpoint: d.after });
  }
  for (const d of differences) {
    if (d.before === before && d.after === after) changes.set(key(d.metric, d.modality, d.site), d);
  }
  return {
    value: (panel, site, name) => values.get(key(panel.metric, panel.modality, site, name)) ?? null,
    change: (panel, site) => changes.get(key(panel.metric, panel.modality, site)) ?? null,
  };
}

/** How clear a change is: at all sites at once, at this one, or not. */
function certaintyOf(change, least) {
  const misses = (span) => span && (span.low > 0 || span.high < 0);
  if (!change || Math.abs(change.value) < least || !misses(change.interval)) return "no";
  return misses(change.band) ? "everywhere" : "here";
}

function makeCurves(analysis, curves) {
  const filed = fileRecords(analysis, curves);
  const { sites, before, after, between } = curves;
  const edge = sites.at(-1)?.place ?? 0;
  const rowOf = (panel, name) => sites.map(({ name: site }) => (name ? filed.value(panel, site, name) : null));

  /** Stretches of neighbouring sites with a value; a gap and the final norm each end one. */
  function stretches(row) {
    const found = [];
    let last = null;
    row.forEach((m, i) => {
      if (m === null) return; // not measured here: the line passes by
      const kind = m.value === null ? null : sites[i].apart ? "apart" : "block";
      if (kind === null) { last = null; return; }
      if (kind !== last) found.push([]);
      found.at(-1).push([sites[i].place, m]);
      last = kind;
    });
    return found;
  }

  function line(stretch, name, own) {
    return {
      type: "scatter", mode: stretch.length > 1 ? "lines" : "markers", name: plain(name, 24),
      x: stretch.map(([x]) => x), y: stretch.map(([, m]) => m.value),
      customdata: stretch.map(([, m]) => withInterval(m.value, m.interval)), hovertemplate: "%{customdata}",
      ...own,
    };
  }

  /** A stretch's band and line, or a mark and a whisker for a single site. */
  function stretchTraces(stretch, name, family, late) {
    const ink = `@${family}`;
    const curve = line(stretch, name, {
      line: { color: ink, width: 2.2, dash: late ? "solid" : "dash" },
      marker: { symbol: SYMBOLS[family], size: 9, color: late ? ink : "@panel", line: { color: ink, width: 2 } },
    });
    const bounds = stretch.filter(([, m]) => m.interval);
    if (!bounds.length) return [curve];
    if (stretch.length === 1) {
      const [[, { value, interval }]] = stretch;
      curve.error_y = { type: "data", symmetric: false, color: ink, thickness: 1.5, width: 0, array: [interval.high - value], arrayminus: [value - interval.low] };
      return [curve];
    }
    const back = [...bounds].reverse();
    return [{
      type: "scatter", mode: "lines", fill: "toself", hoverinfo: "skip", line: { width: 0 }, fillcolor: `${ink}/0.16`,
      x: [...bounds, ...back].map(([x]) => x),
      y: [...bounds.map(([, m]) => m.interval.high), ...back.map(([, m]) => m.interval.low)],
    }, curve];
  }

  /** Why neither checkpoint has a value at a site; empty when one has. */
  function gapAt(panel, at) {
    const both = [rowOf(panel, before)[at], rowOf(panel, after)[at]].filter(Boolean);
    if (!both.length || both.some((m) => m.value !== null)) return "";
    return both.find((m) => m.note)?.note ?? "not measured";
  }

  /** Nothing to see: it names the site under the pointer, and says why a gap is one. */
  function siteTrace(panel, gaps) {
    return {
      type: "scatter", mode: "markers", name: "", x: sites.map((s) => s.place), y: sites.map(() => panel.low),
      marker: { opacity: 0, color: "rgba(0,0,0,0)" }, hovertemplate: "%{customdata}<extra></extra>",
      customdata: sites.map(({ title }, i) => `<b>${plain(title)}</b>${gaps[i] ? `: ${plain(gaps[i])}` : ""}`),
    };
  }

  function chanceTrace(rows) {
    const levels = stretches(rows).flat().filter(([, m]) => m.chance !== null);
    return levels.length ? [{
      type: "scatter", mode: "lines", name: "chance", x: levels.map(([x]) => x), y: levels.map(([, m]) => m.chance),
      line: { color: "@faint", width: 1.5, dash: "dot" }, customdata: levels.map(([, m]) => numberText(m.chance)), hovertemplate: "%{customdata}",
    }] : [];
  }

  /** Grey columns where there is no value; along the foot, how clear each change is. */
  function shapes(panel, gaps) {
    const found = [];
    sites.forEach(({ name, place }, i) => {
      if (gaps[i]) found.push({ type: "rect", x0: place - 0.3, x1: place + 0.3, yref: "paper", y0: 0, y1: 1, fillcolor: "@faint/0.18", line: { width: 0 }, layer: "below" });
      const sure = certaintyOf(filed.change(panel, name), panel.least);
      if (sure !== "no") {
        found.push({
          type: "rect", x0: place - 0.16, x1: place + 0.16, yref: "paper", y0: 0.006, y1: 0.03, layer: "above",
          line: { width: 1, color: `@${panel.family}` }, fillcolor: sure === "everywhere" ? `@${panel.family}` : "rgba(0,0,0,0)",
        });
      }
    });
    return found;
  }

  function figure(panel) {
    const [first, last] = [rowOf(panel, before), rowOf(panel, after)];
    const gaps = sites.map((_, i) => gapAt(panel, i));
    const data = [siteTrace(panel, gaps), ...chanceTrace(last.some(Boolean) ? last : first)];
    for (const own of stretches(first)) data.push(...stretchTraces(own, before, panel.family, false));
    between.forEach((name, i) => {
      for (const own of stretches(rowOf(panel, name))) {
        data.push(line(own, name, {
          line: { color: `@${panel.family}/0.55`, width: 1.2, dash: BETWEEN_DASHES[i % BETWEEN_DASHES.length] },
          marker: { symbol: "line-ew-open", size: 8, color: `@${panel.family}/0.55` },
        }));
      }
    });
    for (const own of stretches(last)) data.push(...stretchTraces(own, after, panel.family, true));
    return { data, layout: baseLayout({
      margin: { l: 46, r: 8, t: 8, b: 24 }, hovermode: "x unified", shapes: shapes(panel, gaps),
      xaxis: baseAxis({
        range: [-0.5, edge + 0.5], tickvals: curves.ticks.map(([x]) => x), ticktext: curves.ticks.map(([, text]) => plain(text)),
        showgrid: false, tickangle: 0, unifiedhovertitle: { text: " " },
      }),
      yaxis: baseAxis({ range: [panel.low, panel.high], nticks: 5 }),
    }) };
  }

  /** What a panel is drawn from, for its downloads. */
  function records(panel) {
    const drift = panel.metric.startsWith("drift:");
    const asked = { metric: panel.metric.replace(/^drift:/, ""), modality: panel.modality };
    const tables = drift ? ["drifts"] : ["measurements", "differences"];
    const own = new Set(sites.map(({ name }) => name));
    return tables.flatMap((table) => recordsOf(analysis, [table, asked]).filter((r) => own.has(r.site)).map((r) => ({ record: table.slice(0, -1), ...r })));
  }

  /** All numbers of a metric's panels, site by site. */
  function table(group) {
    const places = new Map(group.panels.map((panel) => {
      const own = [before, after].flatMap((name) => rowOf(panel, name)).filter((m) => m && m.value !== null);
      return [panel, decimalsOf(own.map((m) => m.value))];
    }));
    const head = make("tr");
    head.append(make("th", "Site", { scope: "col" }));
    for (const { family, shown } of group.panels) {
      const name = make("th", `${shown}${after ? " before" : ""}`, { scope: "col" });
      name.prepend(make("span", "", { class: `swatch m-${family}`, "aria-hidden": "true" }));
      head.append(name, ...(after ? ["after", "difference"] : []).map((word) => make("th", word, { scope: "col" })));
    }
    const body = make("tbody");
    for (const site of sites) {
      const row = make("tr");
      row.append(make("th", site.title, { scope: "row" }));
      for (const panel of group.panels) {
        const write = (m) => make("td", numberText(m?.value ?? null, m?.value == null ? 0 : places.get(panel)), m?.note && m.value === null ? { title: m.note } : {});
        const change = filed.change(panel, site.name);
        row.append(write(filed.value(panel, site.name, before)));
        if (after) row.append(write(filed.value(panel, site.name, after)), make("td", change?.value == null ? "\u2013" : withInterval(change.value, change.interval)));
      }
      body.append(row);
    }
    const whole = make("table", "", { class: "sites" });
    const top = make("thead");
    top.append(head);
    whole.append(make("caption", `${group.title} at every site${after ? ", before, after and the difference with its 95 % interval" : ""}`), top, body);
    return whole;
  }

  return { figure, records, table };
}

/** Curves are drawn when they are seen, tables made when they are opened. */
function startCurves(analysis, curves) {
  if (!curves) return;
  const own = makeCurves(analysis, curves);
  for (const group of curves.groups) {
    for (const panel of group.panels) {
      const place = $(panel.key);
      place.records = () => own.records(panel);
      drawWhenSeen(place, () => own.figure(panel));
    }
    const fold = $(group.key);
    if (!fold) continue; // its table is on the page
    const box = fold.querySelector(".scroll");
    fold.made = () => { if (!box.firstChild) box.append(own.table(group)); };
    fold.addEventListener("toggle", () => { if (fold.open) fold.made(); });
  }
}
