// The page: asks for /live.json once a second and shows it. Nothing is asked of anyone but this server.

import { LineChart, POINTS, ScoreChart, Spark, make, words } from "./charts.js";

const TABLE_ROWS = 12, TABLE_EVERY_MS = 5000, SAY_EVERY_MS = 30000, PATIENCE_MS = 5000;
const COLUMNS = ["at_ms", "actual", "predicted", "lower", "upper", "score"];

const at = (id) => document.getElementById(id);
const put = (id, text) => { const place = at(id); if (place.textContent !== text) place.textContent = text; };
const whole = new Intl.NumberFormat(undefined, { maximumFractionDigits: 0 });
const count = (n, one, many = `${one}s`) => `${whole.format(n)} ${n === 1 ? one : many}`;
const clock = (ms) => new Date(ms).toLocaleTimeString();
const moment = (ms) => (new Date(ms).toDateString() === new Date().toDateString() ? clock(ms) : new Date(ms).toLocaleString());
const ms = (value) => (value === null ? "–" : value < 1000 ? `${whole.format(value)} ms` : `${words(value / 1000)} s`);

// ---- what a screen reader is told: changes of state at once, numbers twice a minute --------------------------------

let saidAt = performance.now(), saidState = "";

function say(text) {
  saidAt = performance.now();
  put("said", text);
}

function state(name, text) {
  at("state").dataset.state = name;
  put("state-words", text);
  if (name !== saidState) say(text);
  saidState = name;
}

// ---- one stream in the spotlight -----------------------------------------------------------------------------------

class Stream {
  constructor(name) {
    this.name = name;
    this.when = make("p", { className: "when" });
    this.charts = make("div", { className: "charts" });
    this.head = make("tr");
    this.rows = make("tbody");
    const wide = make("div", { className: "wide", tabIndex: 0 }, make("table", {},
      make("caption", { className: "unseen", textContent: `Latest readings of ${name}, the newest first` }),
      make("thead", {}, this.head), this.rows));
    wide.setAttribute("role", "region");
    wide.setAttribute("aria-label", `Latest readings of ${name}`);
    this.details = make("details", {}, make("summary", { textContent: `Values of ${name} as a table` }), wide);
    this.details.addEventListener("toggle", () => this.tabulate(true));
    const title = make("h3", { textContent: name });
    this.element = make("article", { className: "stream" }, make("header", {}, title, this.when), this.charts, this.details);
    this.element.setAttribute("aria-label", `Stream ${name}`);
    this.element.dataset.stream = name;
    this.targets = null;
    this.count = 0;
    this.tabulatedAt = 0;
  }

  take(news, anew, everyMs) {
    const fresh = news.count - this.count;
    this.count = news.count;
    this.details.hidden = !news.count;
    if (!news.count) {
      this.when.textContent = "No reading has come since the server started. Its key must be spelled exactly so.";
      return;
    }
    const others = String(news.targets) !== String(this.targets);
    if (others) this.begin(news.targets);
    const kept = anew || others ? null : this.columns;
    this.columns = Object.fromEntries(COLUMNS.map((name) => [name, [...(kept?.[name] ?? []), ...news[name]].slice(-POINTS)]));
    if (kept && !fresh) return;
    const { at_ms, score } = this.columns;
    this.when.textContent = `${count(this.count, "reading")}, the last of ${moment(at_ms[at_ms.length - 1])}`;
    this.targets.forEach((_, i) => {
      const column = (name) => this.columns[name].map((row) => row[i]);
      const parts = { actual: column("actual"), predicted: column("predicted"), lower: column("lower"), upper: column("upper") };
      this.lines[i].draw(parts, kept ? fresh : 0, everyMs);
    });
    this.score.draw(score, kept ? fresh : 0, everyMs);
    this.tabulate(false);
  }

  begin(targets) {
    this.targets = targets;
    this.lines = targets.map((target) => new LineChart(this.name, target));
    this.score = new ScoreChart(this.name);
    this.charts.replaceChildren(...this.lines.map((line) => line.element), this.score.element);
    const heads = targets.flatMap((target) => [target, `${target}, forecast`, `${target}, band`]);
    const head = (text, className) => make("th", { scope: "col", textContent: text, className });
    this.head.replaceChildren(head("time", ""), ...heads.map((text) => head(text, "n")), head("score", "n"));
  }

  tabulate(now) {
    if (!this.details.open || (!now && performance.now() - this.tabulatedAt < TABLE_EVERY_MS)) return;
    this.tabulatedAt = performance.now();
    const { at_ms, actual, predicted, lower, upper, score } = this.columns;
    const cell = (text) => make("td", { textContent: text, className: "n" });
    const newest = at_ms.map((_, i) => i).slice(-TABLE_ROWS).reverse();
    this.rows.replaceChildren(...newest.map((i) => make("tr", {},
      make("th", { scope: "row", textContent: new Date(at_ms[i]).toLocaleString() }),
      ...this.targets.flatMap((_, j) => [
        cell(words(actual[i][j])), cell(words(predicted[i][j])),
        cell(lower[i][j] === null ? "–" : `${words(lower[i][j])} to ${words(upper[i][j])}`)]),
      cell(words(score[i])))));
  }
}

// ---- the whole -----------------------------------------------------------------------------------------------------

const streams = new Map();
const rateLine = new Spark(at("rate-line")), p99Line = new Spark(at("p99-line"));

function showNumbers(live) {
  document.title = `${live.pipeline} · streamrnn`;
  put("pipeline", live.pipeline);
  put("rate", whole.format(live.readings_per_s));
  put("readings", `${count(live.readings, "reading")} answered since the server started`);
  put("p99", ms(live.p99_ms));
  put("p50", live.p50_ms === null ? "no reading in the last 10 s" : `half of them within ${ms(live.p50_ms)}`);
  put("lag", whole.format(live.lag));
  put("lag-s", live.lag ? `records, the oldest ${words(live.lag_s)} s old` : "everything is read");
  put("streams", whole.format(live.streams));
  put("rejected", `${count(live.rejected, "record")} refused`);
  put("model", live.model || "–");
  put("since", live.model_since_ms ? `serving since ${moment(live.model_since_ms)}` : "");
  put("swap", live.swap ? `last swap ${moment(live.swap.at_ms)}, from ${live.swap.from}` : "no swap since the server started");
  put("beside", live.challenger ? `${live.challenger} runs in shadow` : live.retraining ? "a new one is being trained" : "");
  put("version", `streamrnn ${live.version}`);
  put("updated", `updated ${clock(live.at_ms)}`);
  rateLine.draw(live.history.readings_per_s);
  p99Line.draw(live.history.p99_ms);
  at("reasons").hidden = !live.reasons.length;
  const reasons = live.reasons.join("\n");
  if (at("reasons").dataset.shown !== reasons) {
    at("reasons").dataset.shown = reasons;
    at("reasons").replaceChildren(...live.reasons.map((reason) => make("li", { textContent: reason })));
  }
}

function showShards(shards) {
  const cell = (text, className = "") => make("td", { textContent: text, className });
  const number = (value) => cell(value === undefined ? "–" : whole.format(value), "n");
  at("shards").replaceChildren(...shards.map((one) => make("tr", {},
    make("th", { scope: "row", textContent: one.shard }),
    cell(one.state === "restoring" ? `restoring, ${whole.format(100 * one.restored)} %` : one.state),
    cell((one.partitions ?? []).join(", ")), number(one.lag), number(one.streams), number(one.readings),
    number(one.dropped), number(one.restarts), cell(one.model ?? "", "id"))));
}

function showStreams(live) {
  at("none").hidden = live.spotlight.length > 0;
  at("legend").hidden = !live.spotlight.length;
  for (const news of live.spotlight) {
    if (!streams.has(news.stream)) {
      streams.set(news.stream, new Stream(news.stream));
      at("streams-drawn").append(streams.get(news.stream).element);
    }
    streams.get(news.stream).take(news, live.after === null, live.every_ms);
  }
}

function show(live) {
  showNumbers(live);
  showShards(live.shards);
  showStreams(live);
  state(live.ready ? "ready" : "unready", live.ready ? "serving" : "not ready");
  if (performance.now() - saidAt > SAY_EVERY_MS) {
    say(`${whole.format(live.readings_per_s)} readings per second, 99 in 100 within ${ms(live.p99_ms)}, ${count(live.lag, "record")} not read yet`);
  }
}

// ---- asking --------------------------------------------------------------------------------------------------------

let mark = "", paused = false, everyMs = 1000, timer = 0, turn = 0;

async function ask() {
  clearTimeout(timer);
  const mine = ++turn; // a later call takes the rhythm over
  if (!paused && !document.hidden) {
    try {
      const answer = await fetch(`live.json?after=${encodeURIComponent(mark)}`, { signal: AbortSignal.timeout(PATIENCE_MS) });
      if (!answer.ok) throw new Error(String(answer.status));
      const live = await answer.json();
      if (!paused && mine === turn) {
        show(live);
        mark = live.mark;
        everyMs = live.every_ms;
      }
    } catch {
      mark = "";
      state("lost", "no answer from the server; asking again");
    }
  }
  if (mine === turn) timer = setTimeout(ask, everyMs);
}

at("pause").addEventListener("click", () => {
  paused = !paused;
  at("pause").setAttribute("aria-pressed", String(paused));
  put("pause", paused ? "Go on" : "Pause");
  if (paused) state("paused", "paused");
  else ask();
});

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) ask();
});

ask();
