
/* ---- pairs, spectra, gallery ---- */

/** A record with arrays as rows, one an entry. */
function rowsOfArrays(record) {
  const names = Object.keys(record).filter((name) => Array.isArray(record[name]));
  if (!names.length) return [record];
  return record[names[0]].map((_, at) => Object.fromEntries(Object.entries(record).map(([name, value]) => [name, names.includes(name) ? value[at] : value])));
}

/** Histograms and spectra of the chosen site; they follow the map's layer. */
function startPairs(report, map) {
  const chooser = $("pair-site");
  const pairs = report?.pairs;
  if (!chooser || !pairs) return;
  const names = map.checkpoints;
  const [first, last] = [names[map.left], names[map.right]];
  const ends = first === last ? [first] : [first, last];
  const sites = pairs.sites.filter(({ site }) => pairs.spectra.some((s) => s.site === site));
  for (const { site, title } of sites) {
    const option = make("option", title);
    option.value = site;
    chooser.append(option);
  }
  chooser.value = sites.at(-1)?.site ?? "";
  const short = (value) => value.toFixed(3).replace("-", "\u2212");
  const base = baseLayout, axis = baseAxis;
  const hueOf = (pair) => pair.split("-").find((kind) => kind !== "text") ?? "text";

  /** The outline of counts in equal bins, as high as 1. */
  function outlineOf({ low, high }, counts) {
    const most = Math.max(...counts, 1), width = (high - low) / counts.length;
    const x = [low], y = [0];
    counts.forEach((count, i) => { x.push(low + i * width, low + (i + 1) * width); y.push(count / most, count / most); });
    return { x: [...x, high], y: [...y, 0] };
  }

  function pairFigure(pair) {
    const shown = ends.map((name) => pairs.pairs.find((c) => c.pair === pair && c.site === chooser.value && c.checkpoint === name));
    const same = $("pair-axis").checked;
    const whole = shown.filter(Boolean);
    const limits = (list) => {
      const [low, high] = [Math.min(...list.map((c) => c.low)), Math.max(...list.map((c) => c.high))];
      const room = (high - low) * 0.03;
      return [low - room, high + room];
    };
    const hue = hueOf(pair);
    const data = [], layout = { margin: { l: 8, r: 8, t: 4, b: 22 }, annotations: [] };
    shown.forEach((one, i) => {
      const n = i ? String(i + 1) : "";
      const room = 1 / shown.length, top = 1 - i * room, gap = same ? 0.03 : 0.12;
      layout[`yaxis${n}`] = axis({ domain: [top - room + (i === shown.length - 1 ? 0 : gap), top - 0.12], range: [0, 1.05], showgrid: false, showticklabels: false, fixedrange: true });
      layout[`xaxis${n}`] = axis({ anchor: `y${n}`, range: limits(same ? whole : [one ?? whole[0]]), nticks: 5, showticklabels: !same || i === shown.length - 1, showline: true, linecolor: "@line" });
      const told = one ? `matched ${short(one.mean_matched)}, random ${short(one.mean_random)}, closer ${(one.wins * 100).toFixed(0)} %` : "not measured";
      layout.annotations.push({ x: 0, y: top, xref: "paper", yref: "paper", xanchor: "left", yanchor: "top", showarrow: false, align: "left", text: `<b>${ends.length > 1 ? ["before", "after"][i] : plain(ends[0])}</b>  ${told}`, font: { size: 11 } });
      if (!one) return;
      for (const [name, counts, look] of [
        ["random", one.random, { line: { color: "@soft", width: 1.3, dash: "dot" }, fillcolor: "@faint/0.25" }],
        ["matched", one.matched, { line: { color: `@${hue}`, width: 1.8 }, fillcolor: `@${hue}/0.35` }],
      ]) {
        const mean = name === "random" ? one.mean_random : one.mean_matched;
        data.push({ type: "scatter", mode: "lines", name, ...outlineOf(one, counts), fill: "toself", hoveron: "fills", text: `${name}: mean ${short(mean)}`, hoverinfo: "text", xaxis: `x${n}`, yaxis: `y${n}`, ...look });
      }
    });
    return { data, layout: base(layout) };
  }

  function winsFigure(pair) {
    const hue = hueOf(pair);
    const at = pairs.sites.map(({ site }, i) => i + (site === "final_norm" && i ? 0.6 : 0));
    const data = ends.map((name, i) => {
      const values = pairs.sites.map(({ site }) => pairs.pairs.find((c) => c.pair === pair && c.site === site && c.checkpoint === name)?.wins ?? null);
      return {
        type: "scatter", mode: "lines+markers", name: plain(name), x: at, y: values, customdata: pairs.sites.map((s) => s.title),
        hovertemplate: `%{customdata}: %{y:.3f}<extra>${plain(name)}</extra>`,
        line: { color: `@${hue}`, width: 2.2, dash: i || ends.length < 2 ? "solid" : "dash" },
        marker: { size: 5, color: i || ends.length < 2 ? `@${hue}` : "@panel", line: { color: `@${hue}`, width: 1.5 } },
      };
    });
    const here = at[pairs.sites.findIndex(({ site }) => site === chooser.value)];
    const shapes = [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: 0.5, y1: 0.5, line: { color: "@faint", width: 1.5, dash: "dot" } }];
    if (here !== undefined) shapes.push({ type: "line", yref: "paper", x0: here, x1: here, y0: 0, y1: 1, layer: "below", line: { color: "@line", width: 6 } });
    const step = Math.ceil(at.length / 8);
    const ticks = at.map((x, i) => i).filter((i) => i === at.length - 1 || (i % step === 0 && at.length - 1 - i > step / 2));
    const brief = (title) => title.replace(/^block /, "").replace("final norm", "norm").replace("embed", "emb");
    return { data, layout: base({
      margin: { l: 46, r: 8, t: 8, b: 24 }, shapes, hovermode: "closest",
      xaxis: axis({ range: [-0.5, at.at(-1) + 0.5], tickvals: ticks.map((i) => at[i]), ticktext: ticks.map((i) => brief(pairs.sites[i].title)), showgrid: false, tickangle: 0 }),
      yaxis: axis({ nticks: 5 }),
    }) };
  }

  function spectrumFigure(kind) {
    const shown = ends.map((name) => pairs.spectra.find((s) => s.modality === kind && s.site === chooser.value && s.checkpoint === name));
    const data = shown.map((one, i) => ({
      type: "scatter", mode: "lines", name: plain(ends[i]), x: one?.ranks ?? [], y: one?.values ?? [],
      hovertemplate: `direction %{x}: %{y:.3~g}<extra>${plain(ends[i])}</extra>`,
      line: { color: `@${kind}`, width: 2.2, dash: i || ends.length < 2 ? "solid" : "dash" },
    }));
    const note = shown.find((one) => one?.note)?.note;
    return { data, layout: base({
      margin: { l: 46, r: 8, t: 8, b: 24 }, hovermode: "closest",
      xaxis: axis({ type: "log", dtick: 1 }), yaxis: axis({ type: "log", dtick: 1, exponentformat: "power" }),
      annotations: note ? [{ text: plain(note), showarrow: false, x: 0.5, y: 0.95, xref: "paper", yref: "paper" }] : [],
    }) };
  }

  const drawers = {
    "[data-pair]": (place) => [pairFigure, place.dataset.pair, () => pairs.pairs.filter((c) => c.pair === place.dataset.pair && c.site === chooser.value)],
    "[data-wins]": (place) => [winsFigure, place.dataset.wins, () => pairs.pairs.filter((c) => c.pair === place.dataset.wins).map(({ pair, site, checkpoint, wins }) => ({ pair, site, checkpoint, wins }))],
    "[data-spectrum]": (place) => [spectrumFigure, place.dataset.spectrum, () => pairs.spectra.filter((s) => s.modality === place.dataset.spectrum && s.site === chooser.value)],
  };
  const places = Object.entries(drawers).flatMap(([selector, drawer]) => [...document.querySelectorAll(selector)].map((place) => {
    const [maker, of, records] = drawer(place);
    place.records = () => records().flatMap(rowsOfArrays);
    drawWhenSeen(place, () => maker(of));
    return place;
  }));

  function show() {
    const title = sites.find(({ site }) => site === chooser.value)?.title ?? "";
    for (const place of document.querySelectorAll("[data-site-name]")) place.textContent = title;
    for (const place of places.filter((own) => own.classList.contains("drawn"))) drawNow(place);
  }
  chooser.addEventListener("change", show);
  $("pair-axis")?.addEventListener("change", show);
  document.addEventListener("geomkit:site", ({ detail }) => {
    const name = map.sites[detail.site].name;
    if (!sites.some(({ site }) => site === name)) return;
    chooser.value = name;
    show();
  });
}

/** Buttons of the gallery: to hear a sample, and to see it on the map. */
function startGallery(media) {
  for (const place of document.querySelectorAll("[data-sound]")) {
    const button = playButton(media, Number(place.dataset.sound), place.dataset.caption);
    if (button) place.append(button);
  }
  for (const button of document.querySelectorAll("[data-keep]")) {
    button.addEventListener("click", () => document.dispatchEvent(new CustomEvent("geomkit:keep", { detail: { index: Number(button.dataset.keep) } })));
  }
}
