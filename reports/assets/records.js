
/* ---- the records of the page: unpacked, filed, and written as people read them ---- */

const TOLD = 6; // digits of the numbers in a report

/** The lower end of an interval on the other side of its middle, some steps of its last digit further. */
function mirror(middle, low, by) {
  const [digits, power] = (2 * middle - low).toExponential(TOLD - 1).split("e");
  return Number(`${Number(digits.replace(".", "")) + by}e${Number(power) - TOLD + 1}`);
}

/** Records from columns; a record inside a record had columns "outer.inner". */
function unpackTable({ count, columns }) {
  const spread = (own) => {
    if (Array.isArray(own)) return own;
    if ("is" in own) return Array(count).fill(own.is);
    const values = [];
    for (let i = 0; i < own.runs.length; i += 2) values.push(...Array(own.runs[i + 1]).fill(own.words[own.runs[i]]));
    return values;
  };
  const plainly = Object.fromEntries(Object.entries(columns).filter(([, own]) => !("steps" in own)).map(([name, own]) => [name, spread(own)]));
  const mirrored = ({ middle, low, steps, rest }) => {
    let at = 0;
    return Array.from(steps, (sign, i) => {
      if (sign === ".") return null;
      return sign === "x" ? rest[at++] : mirror(plainly[middle][i], plainly[low][i], { "=": 0, "+": 1, "-": -1 }[sign]);
    });
  };
  const values = Object.entries(columns).map(([name, own]) => [name.split("."), plainly[name] ?? mirrored(own)]);
  const outer = new Set(values.filter(([path]) => path.length > 1).map(([[name]]) => name));
  return Array.from({ length: count }, (_, at) => {
    const record = {};
    for (const [[name, inner], own] of values) {
      if (inner !== undefined) {
        if (record[name] !== null) record[name][inner] = own[at];
      } else if (outer.has(name)) record[name] = own[at] === null ? null : {};
      else record[name] = own[at];
    }
    return record;
  });
}

/** The report as it is in report.json; `packed` names the tables that came as columns. */
function unpackReport(report, packed) {
  for (const path of packed) {
    const place = path.slice(0, -1).reduce((inner, name) => inner[name], report);
    place[path.at(-1)] = unpackTable(place[path.at(-1)]);
  }
  return report;
}

/** Records of an analysis whose fields are as asked; a list asks for any of its values. */
function recordsOf(analysis, [table, asked]) {
  const wanted = Object.entries(asked).map(([name, value]) => [name, new Set([value].flat())]);
  return (analysis[table] ?? []).filter((record) => wanted.every(([name, values]) => values.has(record[name])));
}

/* Three significant digits, a real minus; a value and its interval share their decimals. */

const MOST_PLACES = 5;

function decimalsOf(values) {
  const largest = Math.max(0, ...values.map(Math.abs));
  if (largest === 0) return 0;
  return Math.max(0, 2 - Math.floor(Math.log10(Number(largest.toExponential(2)))));
}

/** Fixed decimals; a true tie goes to the even digit, as the tables of the page have it. */
function fixed(value, places) {
  const text = Math.abs(value).toFixed(places);
  const tie = Number.isInteger(value * 2 ** (places + 1)) && !Number.isInteger(value * 2 ** places);
  const low = tie ? Math.floor(Math.abs(value) * 10 ** places) : 1;
  return tie && low % 2 === 0 ? (low / 10 ** places).toFixed(places) : text;
}

function numberText(value, places = decimalsOf([value])) {
  if (value === null || value === undefined) return "\u2013";
  const minus = value < 0 ? "\u2212" : "";
  if (places > MOST_PLACES || Math.abs(value) >= 1e6) {
    const [mantissa, power] = Math.abs(value).toExponential(2).split("e");
    const raised = String(Number(power)).replace(/./g, (c) => (c === "-" ? "\u207b" : "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"[c]));
    return `${minus}${mantissa}\u00d710${raised}`;
  }
  const [whole, part] = fixed(value, places).split(".");
  const text = whole.replace(/\B(?=(\d{3})+$)/g, ",") + (part ? `.${part}` : "");
  return Number(text.replaceAll(",", "")) === 0 ? text : minus + text;
}

function withInterval(value, interval, places) {
  if (value === null || !interval) return numberText(value, value === null ? 0 : places);
  const own = places ?? decimalsOf([value, interval.low, interval.high]);
  return `${numberText(value, own)} [${numberText(interval.low, own)}, ${numberText(interval.high, own)}]`;
}
