
/* ---- samples as people see them: pictures, sounds, a card ---- */

const playing = new Audio();

/** The sample's picture from the sheet; null when it has none. */
function thumbnail(media, index, caption) {
  const at = media.thumbnails[index];
  if (at === undefined) return null;
  const picture = make("span", "", { class: "thumb", role: "img", "aria-label": caption || "Picture of the sample" });
  picture.style.setProperty("--x", at % media.columns);
  picture.style.setProperty("--y", Math.floor(at / media.columns));
  return picture;
}

function soundOf(media, index) {
  return URL.createObjectURL(new Blob([bytes(media.sounds[index])], { type: "audio/wav" }));
}

/** A player with controls; null when there is no sound. */
function player(media, index, caption) {
  if (!media.sounds[index]) return null;
  const audio = make("audio", "", { controls: "", preload: "metadata", "aria-label": caption || "Sound of the sample" });
  audio.src = soundOf(media, index);
  return audio;
}

/** Why a sample is neither seen nor heard here; null when it is, or is text. */
function absence(media, index, kind) {
  if (kind === "text" || media.sounds[index] || media.thumbnails[index] !== undefined) return null;
  const what = { image: "picture", audio: "sound" }[kind] ?? kind;
  const any = Object.keys(media.sounds).length || Object.keys(media.thumbnails).length;
  const why = any ? "it was left out to keep the file small" : "media are embedded only with --embed-media";
  return `The ${what} is not in this file: ${why}.`;
}

/** A small button that plays; null when there is no sound. */
function playButton(media, index, caption) {
  if (!media.sounds[index]) return null;
  const button = make("button", "", { type: "button", class: "play", "aria-label": `Play: ${caption || "sound"}` });
  button.append(icon("M7 4.5v11l9-5.5z"));
  button.addEventListener("click", (event) => {
    event.stopPropagation();
    if (playing.src) URL.revokeObjectURL(playing.src);
    playing.src = soundOf(media, index);
    playing.play();
  });
  return button;
}

/** A drawing of 20 x 20 in the colour of the text. */
function icon(shape) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  svg.setAttribute("viewBox", "0 0 20 20");
  svg.setAttribute("aria-hidden", "true");
  path.setAttribute("d", shape);
  path.setAttribute("fill", "currentColor");
  svg.append(path);
  return svg;
}

/** 0 -> 1st, 1 -> 2nd. */
function ordinal(place) {
  const n = place + 1;
  const last = n % 10, teens = n % 100 > 10 && n % 100 < 14;
  return `${n}${(!teens && { 1: "st", 2: "nd", 3: "rd" }[last]) || "th"}`;
}

/** Two decimals with a real minus. */
function decimal(value) {
  return value.toFixed(2).replace("-", "\u2212");
}

/** The card of a sample. `world` gives rows, samples, media, views, near(i) and keep(i). */
function makeCard(world) {
  const { rows, media } = world;

  function labels(sample) {
    const list = make("dl");
    for (const [own, suffix] of [[sample.labels, ""], [sample.controls, " (control)"]]) {
      for (const [name, value] of Object.entries(own)) list.append(make("dt", name + suffix), make("dd", value));
    }
    return list;
  }

  /** A neighbour as a button: its picture, or what it says. */
  function neighbour(i, both) {
    const { caption, id } = rows.sample(i);
    const item = make("li");
    const button = make("button", "", { type: "button", class: both ? "near kept" : "near" });
    const picture = thumbnail(media, rows.index[i], caption);
    if (picture) {
      picture.setAttribute("aria-hidden", "true");
      picture.removeAttribute("role");
      picture.removeAttribute("aria-label");
      button.append(picture);
    } else button.append(make("span", "", { class: `swatch m-${rows.kind(i)}`, "aria-hidden": "true" }));
    button.append(make("span", caption || id, { class: "words", dir: "auto" }));
    if (both) button.append(make("span", "in both", { class: "tag" }));
    button.addEventListener("click", () => world.keep(i));
    item.append(button);
    const play = playButton(media, rows.index[i], caption);
    if (play) item.append(play);
    return item;
  }

  /** The nearest rows of both sides, under the panels. */
  function showNear(i) {
    const place = $("near");
    const near = i === null ? null : world.near(i);
    place.hidden = !near;
    if (!near) return place.replaceChildren();
    const parts = near.groups.map(({ title, left, right }) => {
      const block = make("section");
      const columns = make("div", "", { class: right ? "twocol" : "" });
      for (const [name, own, other] of [[near.names[0], left, right], [near.names[1], right, left]]) {
        if (!own) continue;
        const column = make("div");
        const list = make("ol");
        list.append(...own.map((j) => neighbour(j, Boolean(other?.includes(j)))));
        column.append(make("h4", name), list);
        columns.append(column);
      }
      block.append(make("h3", title), columns);
      return block;
    });
    place.replaceChildren(...parts, make("p", near.note, { class: "soft" }));
  }

  function showCard(i, whole) {
    const body = $("card-body");
    for (const audio of body.querySelectorAll("audio")) URL.revokeObjectURL(audio.src);
    $("card-hint").hidden = i !== null;
    body.hidden = i === null;
    if (i === null) return body.replaceChildren();
    const sample = rows.sample(i);
    const head = make("p", rows.kind(i), { class: "named" });
    head.prepend(make("span", "", { class: `swatch m-${rows.kind(i)}`, "aria-hidden": "true" }));
    const caption = make("p", sample.caption || "no caption", { class: "caption", dir: "auto" });
    const views = world.views(i);
    const id = make("p", "", { class: "id" });
    id.append(make("bdi", sample.id));
    const also = views.map((j) => rows.kind(j));
    if (also.length) id.append(`, also seen as ${also.join(", ")}`);
    const shown = [i, ...views].flatMap((j) => [
      thumbnail(media, rows.index[j], sample.caption), whole ? player(media, rows.index[j], sample.caption) : null,
    ]);
    const missing = [i, ...views].map((j) => absence(media, rows.index[j], rows.kind(j))).filter(Boolean);
    const partner = world.partner(i);
    body.replaceChildren(
      head, caption, ...shown.filter(Boolean), ...missing.map((told) => make("p", told, { class: "soft" })),
      ...(partner ? [make("p", partner, { class: "partner" })] : []),
      labels(sample), id,
    );
  }

  return { showCard, showNear };
}
