// Pictures of the page: lines with a band, bars, and small lines without axes. Draws plain numbers, knows no server.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 600, HEIGHT = 100;
export const POINTS = 300;

const calm = matchMedia("(prefers-reduced-motion: reduce)");

export function make(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function drawn(name, className) {
  const made = document.createElementNS(SVG, name);
  if (className) made.setAttribute("class", className);
  return made;
}

function canvas(label) {
  const svg = drawn("svg");
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.setAttribute("preserveAspectRatio", "none");
  if (label) {
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", label);
  } else {
    svg.setAttribute("aria-hidden", "true");
  }
  return svg;
}

/** Four significant digits at most, as this reader's language writes them. */
const digits = new Intl.NumberFormat(undefined, { maximumSignificantDigits: 4 });
export const words = (value) => (value === null || value === undefined ? "–" : digits.format(value));

/** A path through all points that are there; a missing one is a gap. x and y are functions of index and value. */
function through(values, x, y) {
  let path = "", pen = "M";
  values.forEach((value, i) => {
    if (value === null) { pen = "M"; return; }
    path += `${pen}${x(i).toFixed(1)} ${y(value).toFixed(2)}`;
    pen = "L";
  });
  return path;
}

/** The area between two lines, one closed piece for each run without a gap. */
function between(lower, upper, x, y) {
  let path = "", run = [];
  const close = () => {
    if (run.length > 1) {
      const there = run.map((i) => `${x(i).toFixed(1)} ${y(upper[i]).toFixed(2)}`);
      const back = run.reverse().map((i) => `${x(i).toFixed(1)} ${y(lower[i]).toFixed(2)}`);
      path += `M${there.join("L")}L${back.join("L")}Z`;
    }
    run = [];
  };
  lower.forEach((value, i) => (value === null || upper[i] === null ? close() : run.push(i)));
  close();
  return path;
}

function range(...columns) {
  let low = Infinity, high = -Infinity;
  for (const column of columns) {
    for (const value of column) {
      if (value === null) continue;
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  if (low > high) return [0, 1];
  return low === high ? [low - 1, high + 1] : [low, high];
}

/** Points come in at the right and move left; `fresh` of them are new. */
function slide(group, fresh, everyMs) {
  if (calm.matches || fresh <= 0 || fresh > POINTS / 2) return;
  const by = (fresh * WIDTH) / (POINTS - 1);
  group.animate([{ transform: `translateX(${by}px)` }, { transform: "none" }], { duration: everyMs, easing: "linear" });
}

const place = (n) => (i) => ((POINTS - n + i) * WIDTH) / (POINTS - 1);

/** One target of one stream: what came, what was forecast, the band. */
export class LineChart {
  constructor(stream, target) {
    this.name = `${target} of ${stream}`;
    this.svg = canvas(this.name);
    this.group = drawn("g");
    this.band = drawn("path", "band");
    this.predicted = drawn("path", "predicted");
    this.actual = drawn("path", "actual");
    this.group.append(this.band, this.predicted, this.actual);
    this.svg.append(this.group);
    this.high = make("span", { className: "edge top-edge" });
    this.low = make("span", { className: "edge low-edge" });
    this.values = make("span", { className: "values" });
    this.high.setAttribute("aria-hidden", "true");
    this.low.setAttribute("aria-hidden", "true");
    this.element = make("figure", {},
      make("figcaption", {}, make("span", { className: "name", textContent: target }), this.values),
      make("div", { className: "plot" }, this.svg, this.high, this.low));
  }

  draw({ actual, predicted, lower, upper }, fresh, everyMs) {
    const n = actual.length;
    let [low, high] = range(actual, predicted);
    const [least, most] = range(lower, upper), room = high - low;
    if (lower.some((value) => value !== null)) {
      low = Math.min(low, Math.max(least, low - room));
      high = Math.max(high, Math.min(most, high + room));
    }
    const x = place(n);
    const y = (value) => HEIGHT - 4 - ((value - low) / (high - low)) * (HEIGHT - 8);
    this.band.setAttribute("d", between(lower, upper, x, y));
    this.predicted.setAttribute("d", through(predicted, x, y));
    this.actual.setAttribute("d", through(actual, x, y));
    slide(this.group, fresh, everyMs);
    this.high.textContent = words(high);
    this.low.textContent = words(low);
    const last = (column) => words(column[n - 1]);
    const said = predicted[n - 1] === null ? "nothing was forecast" : `forecast ${last(predicted)}`;
    const band = lower[n - 1] === null ? "" : `, band ${last(lower)} to ${last(upper)}`;
    this.values.replaceChildren(make("b", { textContent: last(actual) }), ` ${said}${band}`);
    this.svg.setAttribute("aria-label", `${this.name}, last ${n} readings: came ${last(actual)}, ${said}${band}`);
  }
}

/** The scores of one stream as bars from the ground; below 0 is less surprising than nothing at all, and no bar. */
export class ScoreChart {
  constructor(stream) {
    this.name = `score of ${stream}`;
    this.svg = canvas(this.name);
    this.group = drawn("g");
    this.bars = drawn("path", "bars");
    this.group.append(this.bars);
    this.svg.append(this.group);
    this.values = make("span", { className: "values" });
    this.high = make("span", { className: "edge top-edge" });
    this.high.setAttribute("aria-hidden", "true");
    this.element = make("figure", { className: "score" },
      make("figcaption", {}, make("span", { className: "name", textContent: "score" }), this.values),
      make("div", { className: "plot" }, this.svg, this.high));
  }

  draw(score, fresh, everyMs) {
    const n = score.length, x = place(n);
    const most = Math.max(4, range(score)[1]);
    let path = "";
    score.forEach((value, i) => {
      if (value !== null && value > 0) path += `M${x(i).toFixed(1)} ${HEIGHT}V${(HEIGHT * (1 - value / most)).toFixed(2)}`;
    });
    this.bars.setAttribute("d", path);
    slide(this.group, fresh, everyMs);
    this.high.textContent = words(most);
    this.values.replaceChildren(make("b", { textContent: words(score[n - 1]) }), " nats per value");
    this.svg.setAttribute("aria-label", `${this.name}, last ${n} readings: ${words(score[n - 1])} nats per value`);
  }
}

/** A small line without axes, beside a number that says what it is. */
export class Spark {
  constructor(home) {
    this.svg = canvas("");
    this.path = drawn("path");
    this.svg.append(this.path);
    home.append(this.svg);
  }

  draw(values, most = 120) {
    const top = Math.max(range(values)[1], 1e-9);
    const x = (i) => ((most - values.length + i) * WIDTH) / (most - 1);
    this.path.setAttribute("d", through(values, x, (value) => HEIGHT - 4 - (value / top) * (HEIGHT - 8)));
  }
}
