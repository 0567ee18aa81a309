
/* ---- colours of the map ---- */

const KINDS = ["text", "image", "audio", "video"];

/* Okabe and Ito's hues, a little darker on a light ground and lighter on a dark one, so that every
   mark has a contrast of 3; each with the colour words that it could be mistaken for. */
const HUES = [
  { light: "#0072b2", dark: "#4ba6de", like: ["blue"] },
  { light: "#d55e00", dark: "#f0803c", like: ["red", "orange", "brown"] },
  { light: "#009e73", dark: "#2fbf95", like: ["green", "teal"] },
  { light: "#b0578c", dark: "#cc79a7", like: ["pink", "purple"] },
  { light: "#a87600", dark: "#e69f00", like: ["yellow", "orange", "brown"] },
  { light: "#2f93cc", dark: "#7cc4ef", like: ["blue", "cyan"] },
  { light: "#8a7d00", dark: "#f0e442", like: ["yellow"] },
];
const OTHER = { light: "#868f99", dark: "#7a8490" };

/* A label that names a colour wears it: a legend that draws "red" in blue is a lie. */
const WORDS = {
  red: { light: "#c8202f", dark: "#ff5d5d" },
  green: { light: "#1e8a3c", dark: "#4cc96b" },
  blue: { light: "#1f5fd0", dark: "#6ea2ff" },
  yellow: { light: "#d9a900", dark: "#ffdd33", ring: true },
  orange: { light: "#e87500", dark: "#ff9b3d" },
  purple: { light: "#7d3cb5", dark: "#b98aec" },
  pink: { light: "#e0529c", dark: "#ff8fc4" },
  brown: { light: "#845428", dark: "#b98a5e" },
  cyan: { light: "#0797ab", dark: "#3fd0e3" },
  teal: { light: "#00807a", dark: "#33b5ad" },
  grey: { light: "#7c858e", dark: "#8f99a3" },
  black: { light: "#111418", dark: "#000000", ring: true },
  white: { light: "#ffffff", dark: "#ffffff", ring: true },
};
for (const [other, word] of [["violet", "purple"], ["magenta", "pink"], ["turquoise", "teal"], ["gray", "grey"]]) {
  WORDS[other] = WORDS[word];
}

/* Viridis without the end that the ground would swallow. */
const RAMP = ["#440154", "#482878", "#3e4a89", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725"];

function isDark() {
  return (root.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
}

/** Label values, commonest first, to what they wear: colour words themselves, the others a hue that
    none of those words could be mistaken for; when hues run out the rest share a grey. */
function labelPalette(values) {
  const worn = new Map();
  const taken = new Set();
  for (const value of values) {
    const word = value.trim().toLowerCase();
    if (!Object.hasOwn(WORDS, word)) continue;
    worn.set(value, WORDS[word]);
    taken.add(Object.keys(WORDS).find((name) => WORDS[name] === WORDS[word]));
  }
  const free = HUES.filter(({ like }) => !like.some((word) => taken.has(word)));
  for (const value of values.filter((v) => !worn.has(v))) worn.set(value, free.shift() ?? OTHER);
  return worn;
}

/** "#rrggbb" or "rgb(r, g, b)" -> [r, g, b]. */
function channels(text) {
  if (text.startsWith("#")) return [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16));
  return text.match(/[\d.]+/g).slice(0, 3).map(Number);
}

/** A share from 0 to 1 -> a step of the ramp; more is further from the ground. */
function rampColours(steps) {
  const stops = (isDark() ? RAMP.slice(2) : RAMP.slice(0, 8).reverse()).map(channels);
  return Array.from({ length: steps }, (_, i) => {
    const place = (i / Math.max(1, steps - 1)) * (stops.length - 1);
    const [low, high] = [stops[Math.floor(place)], stops[Math.ceil(place)]];
    const mixed = low.map((c, k) => Math.round(c + (high[k] - c) * (place % 1)));
    return `rgb(${mixed.join(", ")})`;
  });
}
