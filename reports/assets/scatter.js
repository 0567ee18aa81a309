
/* ---- one panel of the map: marks, pointer, keyboard ---- */

const NEAR_ENOUGH = 14; // pixels from a mark within which the pointer means it
const TOOLS = ["lasso", "box", "move", "point"];

/** A panel in `place`. `hooks`: camera() and tool() to read; hover(i), pick(i), select(rows, added),
    look(camera) and clear() to tell. */
function makeScatter(place, label, webgl, hooks) {
  const host = make("div", "", { class: "draw scatter", tabindex: "0", role: "application", "aria-roledescription": "map", "aria-label": label });
  const over = make("canvas", "", { class: "over", "aria-hidden": "true" });
  let base, painter, frame = null, side = 0, ratio = 1;
  let pointed = null, loop = null, start = null;

  function addPainter(gl) {
    base?.remove();
    base = make("canvas", "", { "aria-hidden": "true" });
    host.prepend(base);
    painter = (gl && glPainter(base, () => { addPainter(false); fit(); })) || null;
    if (!painter) {
      if (gl) { base.remove(); base = make("canvas", "", { "aria-hidden": "true" }); host.prepend(base); }
      painter = flatPainter(base);
    }
    host.dataset.painter = painter.name;
  }

  /* -- drawing -- */

  function fit() {
    const width = host.clientWidth;
    if (!width) return;
    [side, ratio] = [width, Math.min(devicePixelRatio || 1, 2)];
    for (const canvas of [base, over]) canvas.width = canvas.height = Math.round(side * ratio);
    paint();
  }

  function paint() {
    if (!side) return;
    // On a large screen a mark is larger too.
    if (frame) painter.paint({ ...frame, radius: frame.radius * Math.max(1, side / 520) }, hooks.camera(), side, ratio);
    else if (painter.name === "canvas") base.getContext("2d").clearRect(0, 0, base.width, base.height);
    else painter.paint({ order: [], hidden: [], radius: 1 }, hooks.camera(), side, ratio);
    mark();
  }

  /** What lies over the marks: threads to the kept sample's views and neighbours, rings, the loop. */
  function mark() {
    const pen = over.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, side, side);
    const { out } = lens(hooks.camera(), side);
    if (frame) {
      const { kept, views, near } = frame.marked;
      const ring = (i, r, ink, width) => {
        pen.beginPath();
        pen.arc(...out(frame.xs[i], frame.ys[i]), r, 0, 2 * Math.PI);
        pen.lineWidth = width;
        pen.strokeStyle = ink;
        pen.stroke();
      };
      const thread = (i, dash, ink, width) => {
        pen.beginPath();
        pen.setLineDash(dash);
        pen.moveTo(...out(frame.xs[kept], frame.ys[kept]));
        pen.lineTo(...out(frame.xs[i], frame.ys[i]));
        pen.lineWidth = width;
        pen.strokeStyle = ink;
        pen.stroke();
        pen.setLineDash([]);
      };
      for (const i of near.filter((i) => !frame.hidden[i])) { thread(i, [], colour("faint"), 1); ring(i, 6, colour("soft"), 1.2); }
      for (const i of views.filter((i) => !frame.hidden[i])) { thread(i, [3, 3], colour("ink"), 1.6); ring(i, 8, colour("ink"), 2); }
      if (kept !== null && !frame.hidden[kept]) ring(kept, 9.5, colour("ink"), 2.4);
      if (pointed !== null && pointed !== kept && !frame.hidden[pointed]) ring(pointed, 8, colour("ink"), 1.6);
    }
    if (loop?.length > 1) {
      pen.beginPath();
      for (const [x, y] of loop) pen.lineTo(x, y);
      pen.closePath();
      pen.fillStyle = colour("ink").replace("rgb(", "rgba(").replace(")", ", 0.06)");
      pen.fill();
      pen.setLineDash([4, 3]);
      pen.strokeStyle = colour("ink");
      pen.lineWidth = 1.2;
      pen.stroke();
      pen.setLineDash([]);
    }
  }

  /* -- which sample -- */

  function at(px, py) {
    if (!frame) return null;
    const { out } = lens(hooks.camera(), side);
    let best = null, least = NEAR_ENOUGH ** 2;
    for (const i of frame.order) {
      if (frame.hidden[i] || frame.faded[i]) continue;
      const [x, y] = out(frame.xs[i], frame.ys[i]);
      const far = (x - px) ** 2 + (y - py) ** 2;
      if (far <= least) [best, least] = [i, far];
    }
    return best;
  }

  /** The nearest sample in a direction: what is ahead counts, what is aside counts against. */
  function toward(from, dx, dy) {
    let best = null, least = Infinity;
    for (const i of frame.order) {
      if (i === from || frame.hidden[i] || frame.faded[i]) continue;
      const [x, y] = [frame.xs[i] - frame.xs[from], frame.ys[i] - frame.ys[from]];
      const ahead = x * dx + y * dy, aside = Math.abs(x * dy - y * dx);
      if (ahead <= 0 || aside > 2 * ahead) continue;
      const cost = ahead + 2 * aside;
      if (cost < least) [best, least] = [i, cost];
    }
    return best;
  }

  function inside(shape) {
    const { out } = lens(hooks.camera(), side);
    const found = [];
    for (const i of frame?.order ?? []) {
      if (frame.hidden[i]) continue;
      const [x, y] = out(frame.xs[i], frame.ys[i]);
      let odd = false;
      for (let a = 0, b = shape.length - 1; a < shape.length; b = a, a += 1) {
        const [[ax, ay], [bx, by]] = [shape[a], shape[b]];
        if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) odd = !odd;
      }
      if (odd) found.push(i);
    }
    return found.sort((a, b) => a - b);
  }

  /* -- pointer -- */

  const spot = (event) => {
    const box = host.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };

  function point(i) {
    if (i === pointed) return;
    pointed = i;
    mark();
    hooks.hover(i);
  }

  host.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    start = { at: spot(event), camera: { ...hooks.camera() }, moved: false };
    if (hooks.tool() !== "point") host.setPointerCapture(event.pointerId);
  });
  host.addEventListener("pointermove", (event) => {
    const here = spot(event);
    if (!start) return point(event.pointerType === "touch" ? null : at(...here));
    const [dx, dy] = [here[0] - start.at[0], here[1] - start.at[1]];
    if (Math.hypot(dx, dy) > 4) start.moved = true;
    if (!start.moved) return;
    const tool = hooks.tool();
    if (tool === "move") {
      const { scale } = lens(start.camera, side);
      hooks.look({ ...start.camera, x: start.camera.x - dx / scale, y: start.camera.y + dy / scale });
    } else if (tool === "box") loop = [start.at, [here[0], start.at[1]], here, [start.at[0], here[1]]];
    else if (tool === "lasso") (loop ??= [start.at]).push(here);
    mark();
  });
  host.addEventListener("pointerup", (event) => {
    if (!start) return;
    const shape = loop;
    const { moved } = start;
    start = loop = null;
    if (shape) hooks.select(inside(shape), event.shiftKey);
    else if (!moved) hooks.pick(at(...spot(event)));
    mark();
  });
  host.addEventListener("pointercancel", () => { start = loop = null; mark(); });
  host.addEventListener("pointerleave", () => { if (!start) point(null); });
  host.addEventListener("dblclick", () => hooks.look({ x: 0, y: 0, zoom: 1 }));
  host.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && hooks.tool() !== "move") return; // the page must scroll past
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 300), spot(event));
  }, { passive: false });

  /** Closer by a factor, about a spot that stays where it is. */
  function zoom(factor, [px, py] = [side / 2, side / 2]) {
    const camera = hooks.camera();
    const next = { ...camera, zoom: Math.min(40, Math.max(1, camera.zoom * factor)) };
    const [x, y] = lens(camera, side).back(px, py);
    const [nx, ny] = lens(next, side).back(px, py);
    hooks.look({ ...next, x: next.x + x - nx, y: next.y + y - ny });
  }

  /* -- keyboard -- */

  const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

  host.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !frame) return;
    const { key } = event;
    if (ways[key]) {
      const from = pointed ?? frame.marked.kept;
      const next = from === null ? middle() : toward(from, ...ways[key]);
      if (next !== null) { point(next); hooks.say(next); }
    } else if (key === "Enter" || key === " ") hooks.pick(pointed);
    else if (key === "Escape") { point(null); hooks.clear(); }
    else if (key === "+" || key === "=") zoom(1.5);
    else if (key === "-") zoom(1 / 1.5);
    else if (key === "0") hooks.look({ x: 0, y: 0, zoom: 1 });
    else return;
    event.preventDefault();
  });
  host.addEventListener("blur", () => { if (pointed !== null) point(null); });

  /** The sample nearest to the middle of what is seen. */
  function middle() {
    const { x, y } = hooks.camera();
    let best = null, least = Infinity;
    for (const i of frame.order) {
      const far = (frame.xs[i] - x) ** 2 + (frame.ys[i] - y) ** 2;
      if (!frame.hidden[i] && !frame.faded[i] && far < least) [best, least] = [i, far];
    }
    return best;
  }

  addPainter(webgl);
  host.append(over);
  place.append(host);
  place.classList.add("drawn");
  place.querySelector(".static")?.setAttribute("aria-hidden", "true");
  new ResizeObserver(fit).observe(host);

  return {
    host,
    zoom,
    repaint: paint,
    /** Draw a frame, or nothing. */
    show(next) {
      frame = next;
      if (!side) fit();
      else paint();
    },
    frame: () => frame,
    /** Where a sample is in the window. */
    where(i) {
      const box = host.getBoundingClientRect();
      const [x, y] = lens(hooks.camera(), side).out(frame.xs[i], frame.ys[i]);
      return [box.left + x, box.top + y];
    },
  };
}
