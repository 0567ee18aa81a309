
/* ---- marks on a canvas ----
   A frame is what to draw: { xs, ys, kinds, inks, rings, faded, hidden, order } with one entry a row,
   places in [-1, 1]. A camera is { x, y, zoom }. */

const FADED = 0.07;
const SOLID = 0.8;

/** Where a place in [-1, 1] is on a square of that side, and back. */
function lens(camera, side) {
  const scale = side * 0.47 * camera.zoom;
  return {
    scale,
    out: (x, y) => [side / 2 + (x - camera.x) * scale, side / 2 - (y - camera.y) * scale],
    back: (px, py) => [camera.x + (px - side / 2) / scale, camera.y - (py - side / 2) / scale],
  };
}

/** The outline of a mark: circle text, diamond image, square audio, triangle video. */
function outline(pen, kind, x, y, r) {
  pen.beginPath();
  if (kind === 0) pen.arc(x, y, r, 0, 2 * Math.PI);
  else if (kind === 1) for (const [dx, dy] of [[0, -1.3], [1.3, 0], [0, 1.3], [-1.3, 0]]) pen.lineTo(x + dx * r, y + dy * r);
  else if (kind === 2) pen.rect(x - 0.9 * r, y - 0.9 * r, 1.8 * r, 1.8 * r);
  else for (const [dx, dy] of [[0, -1.1], [1.1, 1.1], [-1.1, 1.1]]) pen.lineTo(x + dx * r, y + dy * r);
  pen.closePath();
}

/** Draws with stamps: each mark is painted once and then copied. */
function flatPainter(canvas) {
  const pen = canvas.getContext("2d");
  const stamps = new Map(); // look of a mark -> its stamp

  function stamp(kind, ink, ring, edge, radius, ratio) {
    const side = Math.ceil((radius * 1.3 + 2) * 2 * ratio);
    const own = Object.assign(document.createElement("canvas"), { width: side, height: side });
    const small = own.getContext("2d");
    small.scale(ratio, ratio);
    outline(small, kind, side / ratio / 2, side / ratio / 2, radius);
    small.fillStyle = ink;
    small.fill();
    small.lineWidth = ring ? 1 : 0.5;
    small.strokeStyle = ring ? colour("soft") : edge;
    small.stroke();
    return own;
  }

  return {
    name: "canvas",
    paint(frame, camera, side, ratio) {
      pen.setTransform(1, 0, 0, 1, 0, 0);
      pen.clearRect(0, 0, canvas.width, canvas.height);
      const { out } = lens(camera, side);
      const edge = colour("panel");
      const look = `${edge} ${frame.radius} ${ratio}`;
      if (stamps.look !== look || stamps.size > 400) stamps.clear();
      stamps.look = look;
      const { xs, ys, kinds, inks, rings, faded, hidden } = frame;
      for (const pale of [1, 0]) {
        pen.globalAlpha = pale ? FADED : SOLID;
        for (const i of frame.order) {
          if (hidden[i] || faded[i] !== pale) continue;
          const key = inks[i] + kinds[i];
          let own = stamps.get(key);
          if (!own) stamps.set(key, (own = stamp(kinds[i], inks[i], rings[i], edge, frame.radius, ratio)));
          const [x, y] = out(xs[i], ys[i]);
          pen.drawImage(own, Math.round(x * ratio - own.width / 2), Math.round(y * ratio - own.height / 2));
        }
      }
    },
  };
}

const VERTEX = `
attribute vec2 place; attribute vec4 ink; attribute float kind;
uniform vec3 camera; uniform float size; uniform float ratio;
varying vec4 tint; varying float shape;
void main() {
  gl_Position = vec4((place - camera.xy) * 0.94 * camera.z, 0.0, 1.0);
  gl_PointSize = size * 2.6 * ratio; tint = ink; shape = kind;
}`;
const FRAGMENT = `
precision mediump float;
varying vec4 tint; varying float shape;
void main() {
  vec2 p = (gl_PointCoord * 2.0 - 1.0) * 1.3;
  float far = shape < 0.5 ? length(p) : shape < 1.5 ? (abs(p.x) + abs(p.y)) / 1.3
    : shape < 2.5 ? max(abs(p.x), abs(p.y)) / 0.9
    : max(p.y / 1.1, (abs(p.x) * 2.0 - p.y - 1.1) / 1.1 + 1.0);
  float cover = 1.0 - smoothstep(0.82, 1.0, far);
  if (cover <= 0.0) discard;
  gl_FragColor = vec4(tint.rgb, 1.0) * tint.a * cover;
}`;

/** Draws with WebGL; null where there is none. */
function glPainter(canvas, lost) {
  const gl = canvas.getContext("webgl", { antialias: false, premultipliedAlpha: true });
  if (!gl) return null;
  const program = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) return null;
  gl.useProgram(program);
  gl.enable(gl.BLEND);
  gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  canvas.addEventListener("webglcontextlost", lost, { once: true });
  const buffers = { place: [2, gl.createBuffer()], ink: [4, gl.createBuffer()], kind: [1, gl.createBuffer()] };

  function fill(name, values) {
    const [width, buffer] = buffers[name];
    const at = gl.getAttribLocation(program, name);
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.bufferData(gl.ARRAY_BUFFER, values, gl.DYNAMIC_DRAW);
    gl.enableVertexAttribArray(at);
    gl.vertexAttribPointer(at, width, gl.FLOAT, false, 0, 0);
  }

  return {
    name: "webgl",
    paint(frame, camera, side, ratio) {
      const drawn = [...frame.order].filter((i) => !frame.hidden[i]);
      const place = new Float32Array(drawn.length * 2);
      const ink = new Float32Array(drawn.length * 4);
      const kind = new Float32Array(drawn.length);
      const known = new Map();
      drawn.forEach((i, at) => {
        if (!known.has(frame.inks[i])) known.set(frame.inks[i], channels(frame.inks[i]).map((c) => c / 255));
        place.set([frame.xs[i], frame.ys[i]], at * 2);
        ink.set([...known.get(frame.inks[i]), frame.faded[i] ? FADED : SOLID], at * 4);
        kind[at] = frame.kinds[i];
      });
      gl.viewport(0, 0, canvas.width, canvas.height);
      gl.clearColor(0, 0, 0, 0);
      gl.clear(gl.COLOR_BUFFER_BIT);
      fill("place", place);
      fill("ink", ink);
      fill("kind", kind);
      gl.uniform3f(gl.getUniformLocation(program, "camera"), camera.x, camera.y, camera.zoom);
      gl.uniform1f(gl.getUniformLocation(program, "size"), frame.radius);
      gl.uniform1f(gl.getUniformLocation(program, "ratio"), ratio);
      gl.drawArrays(gl.POINTS, 0, drawn.length);
    },
  };
}

/** The same marks as SVG text. */
function svgMarks(frame, camera, side) {
  const { out } = lens(camera, side);
  const parts = [];
  for (const i of frame.order) {
    const [x, y] = out(frame.xs[i], frame.ys[i]);
    if (frame.hidden[i] || x < 0 || y < 0 || x > side || y > side) continue;
    const r = frame.radius;
    const at = (dx, dy) => `${(x + dx * r).toFixed(1)} ${(y + dy * r).toFixed(1)}`;
    const shapes = [
      `<circle cx="${x.toFixed(1)}" cy="${y.toFixed(1)}" r="${r}"`,
      `<path d="M${at(0, -1.3)}L${at(1.3, 0)}L${at(0, 1.3)}L${at(-1.3, 0)}Z"`,
      `<path d="M${at(-0.9, -0.9)}L${at(0.9, -0.9)}L${at(0.9, 0.9)}L${at(-0.9, 0.9)}Z"`,
      `<path d="M${at(0, -1.1)}L${at(1.1, 1.1)}L${at(-1.1, 1.1)}Z"`,
    ];
    parts.push(`${shapes[frame.kinds[i]]} fill="${frame.inks[i]}" fill-opacity="${frame.faded[i] ? FADED : SOLID}"/>`);
  }
  return parts.join("");
}
