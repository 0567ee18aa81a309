
/* ---- the heat map: where what changed, and a way to the map's layer ---- */

/** Move the map to a site; its slider has the sites in the same order. */
function goToSite(at) {
  const slider = $("layer");
  if (!slider) return;
  slider.value = at;
  slider.dispatchEvent(new Event("input", { bubbles: true }));
  say(`The map is at ${slider.getAttribute("aria-valuetext")}.`);
}

/** Views to choose from: one modality with all measures, or one measure with all modalities. */
function heatViews(rows) {
  const views = [];
  const first = rows.filter((row) => row.headline);
  if (first.length) views.push({ label: "Overview", title: "headline measures", rows: first, heading: "both" });
  const group = (label, names, keep, name) => {
    for (const value of names) {
      const own = rows.filter((row) => row[keep] === value);
      views.push({ label, title: own[0][name], rows: own, heading: keep === "modality" ? "metric" : "shown" });
    }
  };
  group("All measures of", new Set(rows.map((row) => row.modality)), "modality", "shown");
  group("All modalities in", new Set(rows.map((row) => row.metric)), "metric", "metric");
  return views;
}

function heatCell(row, site, data, text) {
  const box = make("td");
  if (!data) {
    box.className = "gap";
    box.title = `${site.title}: no value`;
    return box;
  }
  const [share, mark, judged] = data;
  const tone = judged ? (share > 0 ? "up" : "down") : "neutral";
  const sure = ["not clear", "clear here", "clear at all sites at once"][mark];
  const button = make("button", "", { type: "button", tabindex: "-1", class: `tone ${tone}` });
  button.style.setProperty("--d", `${share ? 8 + 82 * Math.abs(share) : 0}%`);
  const verdict = judged && share && mark ? (share > 0 ? ", better" : ", worse") : "";
  button.setAttribute("aria-label", `${row.metric}, ${row.shown}, ${site.title}: ${text}, ${sure}${verdict}`);
  if (mark) button.append(make("i", "", { class: mark === 2 ? "sure" : "", "aria-hidden": "true" }));
  box.append(button);
  return box;
}

function startHeat(heat, analysis, curves) {
  if (!heat?.rows.length) return;
  const filed = fileRecords(analysis, curves);
  const changeOf = (row, site) => filed.change({ metric: row.name, modality: row.modality }, site.name);
  const places = new Map([...new Set(heat.rows.map(({ name }) => name))].map((name) => {
    const own = heat.rows.filter((row) => row.name === name).flatMap((row) => heat.sites.map((site) => changeOf(row, site)?.value));
    return [name, decimalsOf(own.filter((value) => value != null))];
  }));
  const views = heatViews(heat.rows);
  const select = $("heat-view");
  for (const label of new Set(views.map((view) => view.label))) {
    const group = make("optgroup", "", { label });
    views.forEach((view, i) => {
      if (view.label === label) group.append(make("option", view.title, { value: i }));
    });
    select.append(group);
  }
  let at = heat.sites.length - 1;
  const short = (name) => name.replace(/^block_0*(?=\d)/, "").replace("final_norm", "norm").replace("embed", "emb");

  function markSite() {
    $("heat-live").querySelectorAll("thead th[data-site]").forEach((head, i) => head.classList.toggle("now", i === at));
  }

  function show() {
    const view = views[Number(select.value)];
    const head = make("tr");
    head.append(make("th", view.heading === "shown" ? "Modality" : "Measure", { scope: "col" }));
    for (const site of heat.sites) head.append(make("th", short(site.name), { scope: "col", "data-site": site.name, title: site.title }));
    const body = make("tbody");
    for (const row of view.rows) {
      const line = make("tr");
      const title = view.heading === "both" ? `${row.metric}, ${row.shown}` : row[view.heading];
      const name = make("th", title, { scope: "row", title: `${row.metric}, ${row.shown}` });
      name.prepend(make("span", "", { class: `swatch m-${row.family}`, "aria-hidden": "true" }));
      line.append(name, ...heat.sites.map((site, i) => {
        const change = row.cells[i] && changeOf(row, site);
        return heatCell(row, site, row.cells[i], change ? withInterval(change.value, change.interval, places.get(row.name)) : "");
      }));
      body.append(line);
    }
    const table = make("table");
    table.style.setProperty("--sites", heat.sites.length);
    const top = make("thead");
    top.append(head);
    table.append(make("caption", `Differences, ${view.label.toLowerCase()} ${view.title}`, { class: "sr" }), top, body);
    $("heat-live").replaceChildren(table);
    const first = table.querySelector("button");
    if (first) first.tabIndex = 0;
    markSite();
  }

  /** The button so many rows and columns away, gaps skipped. */
  function beside(button, down, across) {
    let box = button.parentElement;
    for (;;) {
      const line = down ? (down > 0 ? box.parentElement.nextElementSibling : box.parentElement.previousElementSibling) : box.parentElement;
      box = line?.children[box.cellIndex + across];
      if (!box || box.tagName !== "TD") return null;
      if (box.firstElementChild) return box.firstElementChild;
    }
  }

  const steps = { ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1] };
  $("heat-live").addEventListener("keydown", (event) => {
    const step = steps[event.key];
    const next = step && event.target.matches("td button") && beside(event.target, ...step);
    if (!step) return;
    event.preventDefault();
    if (!next) return;
    event.target.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
  const tell = (event) => { // for the eye; a screen reader has the button's own name
    const button = event.target.closest("td button");
    if (button) $("heat-said").textContent = button.getAttribute("aria-label");
  };
  $("heat-live").addEventListener("focusin", tell);
  $("heat-live").addEventListener("pointerover", tell);
  $("heat-live").addEventListener("click", (event) => {
    const box = event.target.closest("td button")?.parentElement;
    if (box) goToSite(box.cellIndex - 1);
  });
  document.addEventListener("geomkit:site", (event) => {
    at = event.detail.site;
    markSite();
  });
  select.addEventListener("change", show);
  $("heat").classList.add("alive");
  show();
  const shownRows = () => views[Number(select.value)].rows;
  const drawn = () => {
    $("heat-live").scrollLeft = 0;
    return pictureOf($("heat-live").querySelector("table"));
  };
  const records = () => shownRows().flatMap((row) => heat.sites.map((site) => changeOf(row, site)).filter(Boolean));
  offerSaves($("heat").querySelector("figcaption"), "the heat map", { ...pictureWays("heat-map", drawn), ...recordWays("heat-map", records) });
}
