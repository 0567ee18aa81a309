
/* ---- the map: panels that share a state ---- */

const PAGE = 10;
const STEP = 900; // milliseconds a layer while it plays
const GLIDE = 450; // of which the marks move

/** The arrays of the page by name, as their bytes say. */
function readArrays(index, buffer) {
  const raw = new Uint8Array(buffer);
  return Object.fromEntries(
    Object.entries(index).map(([name, { at, bytes: width, shape }]) => {
      const count = shape.reduce((a, b) => a * b, 1);
      if (width === 1) return [name, raw.subarray(at, at + count)];
      return [name, Uint16Array.from({ length: count }, (_, i) => raw[at + i] | (raw[at + count + i] << 8))];
    }),
  );
}

async function startMap(map, media) {
  const places = [...document.querySelectorAll("[data-map]")];
  if (!places.length) return;
  const arrays = readArrays(map.arrays, await unpacked("marks").arrayBuffer());
  const checkpoints = map.checkpoints.length;
  const count = map.rows.index.length;
  const all = Array.from({ length: count }, (_, i) => i);
  const summed = (steps) => {
    let sum = 0;
    return steps.map((step) => (sum += step));
  };
  const sampleOf = summed(map.rows.sample);
  const rows = {
    index: summed(map.rows.index),
    kinds: Uint8Array.from(map.rows.modality),
    kind: (i) => KINDS[map.rows.modality[i]],
    sample: (i) => map.samples[sampleOf[i]],
  };
  const NOWHERE = 0xffff;
  const present = KINDS.filter((_, k) => map.rows.modality.includes(k));
  const families = map.samples.map(() => []);
  for (const i of all) families[sampleOf[i]].push(i);
  const radius = count > 2400 ? 3 : count > 900 ? 3.4 : 4.2;
  // A fixed order without pattern: no modality lies on top of the others.
  const order = [...all].sort((a, b) => ((a * 2654435761) >>> 0) - ((b * 2654435761) >>> 0));
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;

  const state = {
    site: map.sites.length - 1,
    method: "pca",
    sides: places.map((_, panel) => (panel ? map.right : map.left)),
    by: "modality",
    shown: new Set(present),
    selected: null, // a set of rows, or null for all
    only: null, // the label value that the legend singles out
    kept: null, // the row in the card
    page: 0,
    camera: { x: 0, y: 0, zoom: 1 },
    tool: matchMedia("(pointer: coarse)").matches ? "point" : "lasso",
  };
  while (state.site > 0 && map.sites[state.site].pca === null) state.site -= 1;

  /* -- what the arrays say -- */

  const partnerOf = (i) => (arrays.partner && arrays.partner[i] !== NOWHERE ? arrays.partner[i] : null);
  // Two views of one sample have one cosine: it is told with the first of them.
  const second = (i) => partnerOf(i) !== null && partnerOf(i) < i && partnerOf(partnerOf(i)) === i;
  const toldAt = [];
  let toldCount = 0;
  for (const i of all) toldAt.push(second(i) ? toldAt[partnerOf(i)] : toldCount++);

  const cache = new Map();

  /** [xs, ys] in [-1, 1] of a side at a site; null where there is no map. */
  function coordinates(side, site = state.site) {
    const at = map.sites[site][state.method];
    if (at === null || at === undefined) return null;
    const key = `${state.method} ${at} ${state.sides[side]}`;
    if (!cache.has(key)) {
      const from = (at * checkpoints + state.sides[side]) * 2 * count;
      const read = (start) => Float32Array.from(arrays[state.method].subarray(start, start + count), (v) => (v / map.levels.pca) * 2 - 1);
      cache.set(key, [read(from), read(from + count)]);
    }
    return cache.get(key);
  }

  /** A row's cosine to its partner as a share of the site's range; null without one. */
  function share(i, side, site = state.site) {
    const at = map.sites[site].pca;
    const step = arrays.cosine && at !== null ? arrays.cosine[(at * checkpoints + state.sides[side]) * toldCount + toldAt[i]] : 0;
    return step ? (step - 1) / map.levels.cosine : null;
  }

  function cosine(i, side, site = state.site) {
    const part = share(i, side, site);
    const [low, high] = map.sites[site].cosine ?? [0, 0];
    return part === null ? null : low + part * (high - low);
  }

  /** The site whose neighbours the page holds: this one, or the nearest that has them. */
  function nearSite() {
    const held = map.sites.map((site, i) => i).filter((i) => typeof map.sites[i].near === "number");
    held.sort((a, b) => Math.abs(a - state.site) - Math.abs(b - state.site) || b - a);
    return held.length ? held[0] : null;
  }

  const ofKind = KINDS.map((kind) => all.filter((i) => rows.kind(i) === kind));

  /** The nearest rows of a row's own modality, or of its partner's; they count within theirs. */
  function listed(name, i, side, site) {
    const [, , , k] = map.arrays[name].shape;
    const from = ((map.sites[site].near * checkpoints + state.sides[side]) * count + i) * k;
    const kind = rows.kinds[name === "own" ? i : partnerOf(i)];
    return [...arrays[name].subarray(from, from + k)].filter((j) => j !== NOWHERE).map((j) => ofKind[kind][j]);
  }

  function rank(i, side, site) {
    const place = arrays.rank[(map.sites[site].near * checkpoints + state.sides[side]) * count + i];
    return place === NOWHERE ? null : place;
  }

  const names = () => (places.length > 1 ? state.sides.map((c) => map.checkpoints[c]) : [map.checkpoints[state.sides[0]]]);

  /** Nearest rows of both sides for the card. */
  function near(i) {
    const site = nearSite();
    if (site === null) return null;
    const both = (name) => places.map((_, side) => listed(name, i, side, site));
    const mate = partnerOf(i);
    const kinds = { own: rows.kind(i), across: mate === null ? null : rows.kind(mate) };
    const groups = Object.entries(kinds).filter(([, kind]) => kind).map(([name, kind]) => {
      const [left, right] = both(name);
      return { title: `Nearest ${kind}`, left, right, k: left.length };
    });
    const shown = present.map((kind) => `${all.filter((j) => rows.kind(j) === kind).length} ${kind}`);
    const elsewhere = site === state.site ? "" : " (those of this site are not in the file)";
    return {
      groups, site: map.sites[site].title, names: places.length > 1 ? names() : [names()[0]],
      note: `By cosine in the full space at the ${map.sites[site].title}${elsewhere}, among the ${shown.join(", ")} shown.`,
    };
  }

  /** How near a row's other view is, in words. */
  function partner(i) {
    const mate = partnerOf(i);
    if (mate === null) return "";
    const site = nearSite();
    const total = all.filter((j) => rows.kind(j) === rows.kind(mate)).length;
    const said = places.map((_, side) => {
      const own = cosine(i, side);
      const place = site === state.site ? rank(i, side, site) : null;
      return [own === null ? "" : `cosine ${decimal(own)}`, place === null ? "" : `${ordinal(place)} nearest of ${total}`].filter(Boolean).join(", ");
    });
    if (!said[0]) return "";
    return `Its ${rows.kind(mate)}: ${said.join(" \u2192 ")}.`;
  }

  const world = { rows, media, near, partner, keep: (i) => keep(i), views: (i) => families[sampleOf[i]].filter((j) => j !== i) };
  const { showCard, showNear } = makeCard(world);
  const told = (i) => `${rows.kind(i)}: ${rows.sample(i).caption || rows.sample(i).id}`;

  /* -- colours -- */

  /** The row's value of the chosen label; undefined when it has none. */
  function valueOf(i) {
    const [source, name] = state.by.split(/:(.*)/s);
    const own = rows.sample(i)[source];
    return own && Object.hasOwn(own, name) ? own[name] : undefined;
  }

  /** Values of the chosen label, commonest first. */
  function values() {
    const counts = new Map();
    for (const i of all) {
      const value = valueOf(i);
      if (value !== undefined) counts.set(value, (counts.get(value) ?? 0) + 1);
    }
    return [...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)).map(([name]) => name);
  }

  let worn = { key: "" }; // what was worn last: most steps change no colour

  /** What every row wears on a side: inks and rings. */
  function dress(side) {
    if (state.by === "cosine") return { inks: byCosine(side), rings: new Uint8Array(count) };
    const key = `${state.by} ${isDark()}`;
    if (worn.key !== key) worn = { key, ...(state.by === "modality" ? byModality() : byLabel()) };
    return worn;
  }

  function byModality() {
    const own = KINDS.map(colour);
    return { inks: all.map((i) => own[rows.kinds[i]]), rings: new Uint8Array(count) };
  }

  function byCosine(side) {
    const ramp = rampColours(64), pale = colour("grid");
    return all.map((i) => {
      const part = share(i, side);
      return part === null ? pale : ramp[Math.round(part * 63)];
    });
  }

  function byLabel() {
    const theme = isDark() ? "dark" : "light";
    const own = labelPalette(values()), pale = colour("grid");
    const rings = new Uint8Array(count);
    const inks = all.map((i) => {
      const hue = own.get(valueOf(i));
      if (hue?.ring) rings[i] = 1;
      return hue ? hue[theme] : pale;
    });
    return { inks, rings };
  }

  function showLegend() {
    const legend = $("map-legend");
    legend.hidden = state.by === "modality"; // the toggles wear the colours already
    const items = [];
    if (state.by === "cosine") {
      const [low, high] = map.sites[state.site].cosine ?? [0, 0];
      const bar = make("span", "", { class: "ramp", "aria-hidden": "true" });
      bar.style.background = `linear-gradient(to right, ${rampColours(9).join(", ")})`;
      const item = make("li", `${decimal(low)} `);
      item.append(bar, ` ${decimal(high)}: cosine to the sample's other view, in the full space, on one scale for both panels`);
      items.push(item);
    } else if (state.by !== "modality") {
      const theme = isDark() ? "dark" : "light";
      const worn = [...labelPalette(values())];
      const named = worn.filter(([, own]) => own !== OTHER);
      for (const [name, own] of named) {
        const item = make("li");
        const button = make("button", name, { type: "button", class: "value", "aria-pressed": String(state.only === name) });
        const swatch = make("span", "", { class: own.ring ? "swatch chip-swatch ringed" : "swatch chip-swatch", "aria-hidden": "true" });
        swatch.style.background = own[theme];
        button.prepend(swatch);
        button.addEventListener("click", () => {
          state.only = state.only === name ? null : name;
          say(state.only === null ? "All values." : `Only ${name}.`);
          showLegend();
          show();
          [...legend.querySelectorAll("button")].find((b) => b.textContent === name)?.focus();
        });
        item.append(button);
        items.push(item);
      }
      if (named.length < worn.length) items.push(make("li", `grey: ${worn.length - named.length} other values`));
      items.push(make("li", "pale: no such label; shapes tell modalities", { class: "soft" }));
    }
    legend.replaceChildren(...items);
  }

  /* -- panels -- */

  const hooks = {
    camera: () => state.camera,
    tool: () => state.tool,
    hover: (i) => (i === null ? showCard(state.kept, true) : showCard(i, i === state.kept)),
    say: (i) => say(told(i)),
    pick: (i) => { if (i !== null) keep(i); },
    select(found, added) {
      if (found.length) select(new Set(added && state.selected ? [...state.selected, ...found] : found));
    },
    clear() {
      if (state.selected) select(null);
      if (state.kept !== null) keep(null);
    },
    look(camera) {
      const free = 1 - 1 / camera.zoom;
      state.camera = { zoom: camera.zoom, x: Math.max(-free, Math.min(free, camera.x)), y: Math.max(-free, Math.min(free, camera.y)) };
      if (state.camera.zoom === 1) state.camera.x = state.camera.y = 0;
      for (const panel of panels) panel.repaint();
    },
  };
  const panelLabel = (side) => `Map of ${map.checkpoints[state.sides[side]]}: arrow keys go from sample to sample, Enter keeps one, Escape lets go`;
  const panels = places.map((place, side) =>
    makeScatter(place, panelLabel(side), map.webgl, hooks));

  function frameOf(side, at) {
    if (!at) return null;
    const off = KINDS.map((kind) => (state.shown.has(kind) ? 0 : 1));
    const hidden = rows.kinds.map((kind) => off[kind]);
    const whole = !state.selected && state.only === null;
    const faded = whole ? new Uint8Array(count) : Uint8Array.from(all, (i) => ((state.selected && !state.selected.has(i)) || (state.only !== null && valueOf(i) !== state.only) ? 1 : 0));
    const site = nearSite();
    const marked = { kept: state.kept, views: [], near: [] };
    if (state.kept !== null) {
      marked.views = world.views(state.kept);
      if (site !== null && site === state.site) marked.near = listed("own", state.kept, side, site);
    }
    return { xs: at[0], ys: at[1], kinds: rows.kinds, hidden, faded, order, radius, marked, ...dress(side) };
  }

  let glide = 0;

  /** Draw the state; with `from`, the marks move there from the site before. */
  function show(from = null) {
    cancelAnimationFrame(glide);
    const ends = panels.map((_, side) => coordinates(side));
    const starts = from === null || still ? ends : panels.map((_, side) => coordinates(side, from));
    const frames = panels.map((_, side) => frameOf(side, ends[side]));
    const name = map.sites[state.site].name;
    const begun = performance.now();
    function step(now) {
      const t = starts === ends || starts.some((s) => !s) ? 1 : Math.min(1, (now - begun) / GLIDE);
      const eased = t * t * (3 - 2 * t);
      panels.forEach((panel, side) => {
        const frame = frames[side];
        if (frame && t < 1) {
          const mix = (axis) => starts[side][axis].map((v, i) => v + (ends[side][axis][i] - v) * eased);
          panel.show({ ...frame, xs: mix(0), ys: mix(1) });
        } else panel.show(frame);
        panel.host.dataset.site = frame ? name : "";
        panel.host.dataset.checkpoint = map.checkpoints[state.sides[side]];
      });
      if (t < 1) glide = requestAnimationFrame(step);
    }
    step(begun);
  }

  /* -- choosing -- */

  function keep(i) {
    state.kept = i;
    showCard(i, true);
    showNear(i);
    say(i === null ? "No sample kept." : `Kept ${told(i)}. ${partner(i)}`);
    markTable();
    show();
  }

  function select(chosen) {
    state.selected = chosen;
    state.page = 0;
    showTable();
    if (chosen) {
      const counts = present.map((kind) => `${kind} ${[...chosen].filter((i) => rows.kind(i) === kind).length}`);
      say(`${chosen.size} samples selected: ${counts.join(", ")}.`);
      $("points").open = true;
    } else say("Selection cleared.");
    $("clear-map").hidden = !chosen;
    show();
  }

  /* -- the table -- */

  function found() {
    const wanted = $("find").value.trim().toLowerCase();
    return all.filter((i) => {
      if (!state.shown.has(rows.kind(i)) || (state.selected && !state.selected.has(i))) return false;
      if (state.only !== null && valueOf(i) !== state.only) return false;
      const { id, caption, labels, controls } = rows.sample(i);
      return [id, caption, ...Object.values(labels), ...Object.values(controls)].join(" ").toLowerCase().includes(wanted);
    });
  }

  function markTable() {
    for (const line of $("point-rows").children) {
      if (Number(line.dataset.row) === state.kept) line.setAttribute("aria-current", "true");
      else line.removeAttribute("aria-current");
    }
  }

  function tableRow(i) {
    const { id, caption } = rows.sample(i);
    const line = make("tr", "", { "data-row": i });
    const button = make("button", id, { type: "button" });
    button.addEventListener("click", () => keep(i));
    const name = make("th", "", { scope: "row" });
    name.append(button);
    const kind = make("td");
    kind.append(make("span", "", { class: `swatch m-${rows.kind(i)}`, "aria-hidden": "true" }), rows.kind(i));
    const said = make("td", "", { dir: "auto" });
    const picture = thumbnail(media, rows.index[i], caption);
    const play = playButton(media, rows.index[i], caption);
    said.append(...[picture, play].filter(Boolean), caption);
    line.append(name, kind, said);
    if (arrays.cosine) {
      for (const side of places.keys()) {
        const own = cosine(i, side);
        line.append(make("td", own === null ? "\u2013" : decimal(own), { class: "r" }));
      }
    }
    return line;
  }

  function showTable() {
    const rest = found();
    const pages = Math.max(1, Math.ceil(rest.length / PAGE));
    state.page = Math.min(state.page, pages - 1);
    $("point-rows").replaceChildren(...rest.slice(state.page * PAGE, (state.page + 1) * PAGE).map(tableRow));
    $("found").textContent = rest.length ? `${rest.length} samples, page ${state.page + 1} of ${pages}` : "No sample matches.";
    $("earlier").disabled = state.page === 0;
    $("later").disabled = state.page >= pages - 1;
    $("clear").disabled = !state.selected;
    markTable();
  }

  /** The samples that the table holds, where they stand on the map, as records. */
  function pointRecords() {
    const sides = [...places.keys()];
    const at = sides.map((side) => coordinates(side));
    return found().map((i) => ({
      id: rows.sample(i).id, modality: rows.kind(i), caption: rows.sample(i).caption, site: map.sites[state.site].title,
      ...Object.fromEntries(sides.flatMap((side) => ["x", "y"].map((axis, k) => [`${side ? "after" : "before"}_${axis}`, at[side] ? at[side][k][i] : null]))),
      ...(arrays.cosine ? Object.fromEntries(sides.map((side) => [`${side ? "after" : "before"}_partner_cosine`, cosine(i, side)])) : {}),
    }));
  }

  /** Some panels as one drawing. */
  function pictureOfPanels(sides) {
    const side = 480, gap = 20, top = 34;
    const site = map.sites[state.site].title;
    const parts = sides.map((panel, at) => {
      const frame = panels[panel].frame();
      const title = `<text x="0" y="-12" font-size="14" fill="${plainInk(colour("ink"))[0]}">${escaped(map.checkpoints[state.sides[panel]])}, ${escaped(site)}</text>`;
      const edge = `<rect width="${side}" height="${side}" fill="none" stroke="${plainInk(colour("line"))[0]}"/>`;
      return `<g transform="translate(${at * (side + gap)} ${top})">${edge}${title}${frame ? svgMarks(frame, state.camera, side) : ""}</g>`;
    });
    return svgPage(sides.length * (side + gap) - gap, side + top, parts.join(""));
  }

  /* -- controls -- */

  function showSite() {
    const site = map.sites[state.site];
    const there = coordinates(0) !== null;
    const held = map.sites.filter((s) => typeof s.umap === "number").map((s) => s.title);
    const reason = state.method === "umap" ? `UMAP was made for ${held.join(", ")} only` : site.note;
    const share = state.method === "pca" && there ? `, axes carry ${site.explained[0]} % and ${site.explained[1]} % of the variance` : "";
    $("layer").value = state.site;
    $("layer-name").textContent = site.title;
    $("layer").setAttribute("aria-valuetext", there ? site.title + share : `${site.title}, no map: ${reason}`);
    $("axes-note").textContent = share ? `The axes carry ${site.explained[0]} % and ${site.explained[1]} % of the variance here.` : "";
    $("layer-note").hidden = there;
    $("layer-note").textContent = there ? "" : `${site.title}: ${reason}.`;
  }

  function goTo(site, glides = false) {
    const from = state.site;
    if (site === from) return;
    state.site = site;
    showSite();
    if (state.by === "cosine") showLegend();
    show(glides ? from : null);
    if ($("points").open) showTable();
    if (state.kept !== null) {
      showCard(state.kept, true);
      showNear(state.kept);
    }
    document.dispatchEvent(new CustomEvent("geomkit:site", { detail: { site } }));
  }

  let timer = 0;

  function play(on) {
    clearInterval(timer);
    timer = 0;
    const button = $("play");
    button.dataset.playing = on;
    button.setAttribute("aria-label", on ? "Pause" : "Play through the layers");
    button.replaceChildren(icon(on ? "M5.5 4h3v12h-3zM11.5 4h3v12h-3z" : "M6 4v12l10-6z"));
    if (!on) return;
    const stops = map.sites.map((_, i) => i).filter((i) => coordinates(0, i));
    const next = () => stops.find((i) => i > state.site);
    if (next() === undefined) goTo(stops[0]);
    timer = setInterval(() => {
      if (next() === undefined) return play(false);
      goTo(next(), true);
      if (next() !== undefined) return;
      play(false);
      say(`Stopped at ${map.sites[state.site].title}.`);
    }, STEP);
  }

  $("layer").addEventListener("input", () => { play(false); goTo(Number($("layer").value)); });
  $("play").addEventListener("click", () => play(!timer));
  for (const kind of present) {
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
  if (arrays.cosine && all.some((i) => partnerOf(i) !== null)) choices.set("cosine", "similarity to the other view");
  for (const { labels, controls } of map.samples) {
    for (const name of Object.keys(labels)) choices.set(`labels:${name}`, name);
    for (const name of Object.keys(controls)) choices.set(`controls:${name}`, `${name} (control)`);
  }
  for (const [value, name] of choices) {
    const option = make("option", name);
    option.value = value;
    $("colour").append(option);
  }
  $("colour").addEventListener("change", () => {
    state.by = $("colour").value;
    state.only = null;
    showLegend();
    showTable();
    show();
  });
  $("method")?.addEventListener("change", () => {
    state.method = $("method").value;
    if (!coordinates(0)) {
      const at = map.sites.map((_, i) => i).filter((i) => coordinates(0, i));
      if (at.length) state.site = at.reduce((a, b) => (Math.abs(b - state.site) < Math.abs(a - state.site) ? b : a));
    }
    showSite();
    show();
    say(`Axes: ${state.method === "pca" ? "PCA" : "UMAP"}, ${map.sites[state.site].title}.`);
  });
  for (const panel of places.keys()) {
    const chooser = $(`side-${panel}`);
    if (!chooser) continue;
    map.checkpoints.forEach((name, i) => {
      const option = make("option", name);
      option.value = i;
      chooser.append(option);
    });
    chooser.value = state.sides[panel];
    chooser.addEventListener("change", () => {
      state.sides[panel] = Number(chooser.value);
      panels[panel].host.setAttribute("aria-label", panelLabel(panel));
      showCard(state.kept, true);
      showNear(state.kept);
      showTable();
      show();
    });
  }
  function useTool(tool) {
    state.tool = tool;
    for (const { host } of panels) host.dataset.tool = tool;
    for (const box of document.querySelectorAll("input[name=tool]")) box.checked = box.value === tool;
  }
  for (const box of document.querySelectorAll("input[name=tool]")) box.addEventListener("change", () => useTool(box.value));
  const zoomed = (act) => () => { act(); say(`Zoom ${decimal(state.camera.zoom)}.`); };
  $("closer").addEventListener("click", zoomed(() => panels[0].zoom(1.5)));
  $("farther").addEventListener("click", zoomed(() => panels[0].zoom(1 / 1.5)));
  $("whole").addEventListener("click", zoomed(() => hooks.look({ x: 0, y: 0, zoom: 1 })));
  const turned = (to) => () => { state.page = to(); showTable(); say($("found").textContent, 400); };
  $("find").addEventListener("input", turned(() => 0));
  $("earlier").addEventListener("click", turned(() => state.page - 1));
  $("later").addEventListener("click", turned(() => state.page + 1));
  for (const id of ["clear", "clear-map"]) $(id).addEventListener("click", () => select(null));
  $("save-points").addEventListener("click", recordWays("samples", pointRecords).CSV);
  $("save-map").addEventListener("click", () => save("map.svg", "image/svg+xml", pictureOfPanels([...places.keys()])));
  places.forEach((place, side) => {
    const caption = place.closest("figure").querySelector("figcaption");
    const label = `the map ${places.length > 1 ? ["before", "after"][side] : ""}`.trim();
    offerSaves(caption, label, { ...pictureWays(slug(label), () => pictureOfPanels([side])), ...recordWays("samples", pointRecords) });
  });
  document.addEventListener("geomkit:keep", ({ detail }) => {
    const i = rows.index.indexOf(detail.index);
    if (i < 0) return;
    $("map").scrollIntoView();
    keep(i);
    panels.at(-1).host.focus({ preventScroll: true });
  });

  $("map-live").hidden = false;
  useTool(state.tool);
  play(false);
  showSite();
  showLegend();
  showTable();
  show();
  places.forEach((place, side) => { place.scatter = panels[side]; });
  redraw.add(() => { showLegend(); show(); });
}
