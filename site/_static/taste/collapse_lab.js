"use strict";
/* The page of the collapse lab: settings, buttons, and four charts that are drawn while the lab trains. */
(() => {
  const { Lab, dead } = taste.collapse;
  const { EXPERT_COLORS, inkOn, element, shape, button, slider, fixed, count } = taste.page;
  const EXPERTS = 8;
  const RUN = 400; // steps of a run, as in the course
  const WEIGHTS = [0, 0.01, 0.03, 0.1, 0.3, 1];
  const RATES = [0, 0.001, 0.003, 0.01, 0.02, 0.05, 0.1];
  const PRESETS = { "No help": [0, 0], "Loss 0.1": [0.1, 0], "Bias 0.02": [0, 0.02] };
  const [WIDTH, HEIGHT, LEFT, BOTTOM, TOP] = [360, 200, 38, 26, 8]; // of a chart, in its own units

  const path = (points) => points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");

  /** The places of at most so many values: charts are no wider than the screen. */
  function thin(length, most = 240) {
    const stride = Math.ceil(length / most);
    return Array.from({ length }, (_, i) => i).filter((i) => i % stride === 0 || i === length - 1);
  }

  /** An empty chart with axes; y values run over [low, high], and `labels` are {value: text}. */
  function frame(title, alt, steps, [low, high], labels, unit) {
    const x = (step) => LEFT + (step / steps) * (WIDTH - LEFT - 8);
    const y = (value) => TOP + ((high - value) / (high - low)) * (HEIGHT - TOP - BOTTOM);
    const marks = Object.entries(labels).flatMap(([value, text]) => [
      shape("line", { class: "taste-grid", x1: LEFT, x2: WIDTH - 8, y1: y(Number(value)), y2: y(Number(value)) }),
      shape("text", { x: LEFT - 5, y: y(Number(value)) + 4, "text-anchor": "end" }, text),
    ]);
    const feet = [0, steps / 2, steps].map((step) =>
      shape("text", { x: x(step), y: HEIGHT - 10, "text-anchor": step === steps ? "end" : "middle" }, String(step)),
    );
    const picture = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": alt }, ...marks);
    const end = shape("text", { x: x(steps * 0.75), y: HEIGHT - 10, "text-anchor": "middle" }, "step");
    picture.append(...feet, end);
    const root = element("figure", {}, element("figcaption", {}, title, element("small", {}, unit)), picture);
    return { root, picture, x, y };
  }

  class Page {
    constructor(root) {
      this.root = root;
      Object.assign(this, { weight: 0, rate: 0, offset: 1, seed: 0, before: [], timer: null });
      this.build();
      this.reset();
    }

    get still() {
      return window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    }

    get running() {
      return this.timer !== null;
    }

    reset() {
      this.pause();
      if (this.history?.length) this.before = this.history.map((step) => step.taskLoss);
      this.lab = new Lab(taste.random.source(this.seed), { offset: this.offset });
      this.history = [];
      this.changes = [];
      this.goal = RUN;
      this.draw();
    }

    step(steps) {
      for (let n = 0; n < steps; n++) this.history.push(this.lab.step(this.weight, this.rate));
    }

    /** With reduced motion the charts are drawn a few times in a run, and not at every frame. */
    run() {
      if (this.history.length === this.goal) this.goal += RUN;
      this.say(`Training until step ${this.goal}.`);
      const [size, wait] = this.still ? [100, 50] : [2, 16];
      const turn = () => {
        this.step(Math.min(size, this.goal - this.history.length));
        const done = this.history.length >= this.goal;
        this.timer = done ? null : setTimeout(turn, wait);
        this.draw();
        if (done) this.say(this.report());
      };
      this.timer = setTimeout(turn, 0);
      this.draw();
    }

    pause() {
      clearTimeout(this.timer);
      this.timer = null;
    }

    /** Settings of the remedies act at once, also on a run that has collapsed. */
    set(weight, rate) {
      if (weight === this.weight && rate === this.rate) return;
      Object.assign(this, { weight, rate });
      if (this.history.length) this.changes.push(this.history.length);
      this.weights.set(weight);
      this.rates.set(rate);
      this.draw();
    }

    build() {
      this.weights = slider("Loss weight", WEIGHTS, 0, (weight) => this.set(weight, this.rate));
      this.rates = slider("Bias rate", RATES, 0, (rate) => this.set(this.weight, rate));
      const anew = (name) => (value) => ((this[name] = value), this.reset());
      this.go = button("Run", () => this.toggle());
      this.go.classList.add("taste-main");
      this.presets = Object.entries(PRESETS).map(([name, setting]) => button(name, () => this.set(...setting)));
      const one = button("Step", () => (this.pause(), this.one()));
      const reset = button("Reset", () => (this.reset(), this.say("Back at step 0.")));
      this.live = element("p", { class: "taste-live", role: "status" });
      // "simple" tells furo that this is no description of an interface.
      this.numbers = element("dl", { class: "taste-numbers simple" });
      this.charts = element("div", { class: "taste-charts" });
      this.root.replaceChildren(
        element("div", { class: "taste-actions", role: "group", "aria-label": "Remedies" }, ...this.presets),
        element(
          "div",
          { class: "taste-settings" },
          ...[this.weights.root, this.rates.root],
          slider("Offset (new run)", [0, 0.25, 0.5, 0.75, 1, 1.5, 2], 1, anew("offset")).root,
          slider("Seed (new run)", [...Array(20).keys()], 0, anew("seed")).root,
        ),
        element("div", { class: "taste-actions" }, this.go, one, reset),
        this.numbers,
        this.live,
        this.charts,
      );
    }

    one() {
      this.step(1);
      this.goal = Math.max(this.goal, this.history.length);
      this.draw();
      this.say(this.report());
    }

    toggle() {
      if (!this.running) return this.run();
      this.pause();
      this.draw();
      this.say(this.report());
    }

    say(text) {
      this.live.textContent = text;
    }

    /** The latest numbers; null before the first step. */
    get latest() {
      if (this.history.length === 0) return null;
      const { taskLoss, counts_E } = this.history.at(-1);
      const gone = dead(this.history.map((step) => step.counts_E)).filter(Boolean).length;
      return { taskLoss, violation: taste.routing.maxViolation(counts_E), dead: gone };
    }

    report() {
      const { taskLoss, violation, dead: gone } = this.latest;
      const experts = gone ? count(gone, "dead expert") : "no dead expert";
      return (
        `Step ${this.history.length}: task loss ${fixed(taskLoss, 3)}, ${experts}, ` +
        `max violation ${fixed(violation, 2)}.`
      );
    }

    draw() {
      this.go.textContent = this.running ? "Pause" : this.history.length === this.goal ? `Run ${RUN} more` : "Run";
      Object.values(PRESETS).forEach(([weight, rate], i) => {
        this.presets[i].setAttribute("aria-pressed", String(weight === this.weight && rate === this.rate));
      });
      const now = this.latest;
      const texts = {
        Step: this.history.length,
        "Task loss": now ? fixed(now.taskLoss, 3) : "–",
        "Dead experts": now ? `${now.dead} of ${EXPERTS}` : "–",
        "Max violation": now ? fixed(now.violation, 2) : "–",
      };
      this.numbers.replaceChildren(
        ...Object.entries(texts).map(([name, text]) =>
          element("div", {}, element("dt", {}, name), element("dd", {}, String(text))),
        ),
      );
      const steps = Math.max(RUN, Math.ceil(this.history.length / RUN) * RUN);
      this.charts.replaceChildren(this.bands(steps), this.losses(steps), this.who(), this.deaths(steps));
    }

    bands(steps) {
      const labels = { 0: "0", 0.25: "¼", 0.5: "½", 0.75: "¾", 1: "1" };
      const last = this.history.at(-1)?.counts_E.map((n) => n / this.lab.points) ?? [];
      const now = last.map((share) => fixed(share, 2)).join(", ");
      const alt = `Share of the load by expert over ${this.history.length} steps; now ${now}`;
      const chart = frame("Who gets the points", alt, steps, [0, 1], labels, "share of the load, a band an expert");
      const at = thin(this.history.length);
      let low = at.map(() => 0);
      EXPERT_COLORS.forEach((color, e) => {
        const high = at.map((i, n) => low[n] + this.history[i].counts_E[e] / this.lab.points);
        const upper = at.map((i, n) => [chart.x(i + 1), chart.y(high[n])]);
        const lower = at.map((i, n) => [chart.x(i + 1), chart.y(low[n])]);
        if (at.length > 1) {
          const outline = `${path([...upper, ...lower.reverse()])}Z`;
          chart.picture.append(shape("path", { d: outline, fill: color, class: "taste-band" }));
        }
        if (at.length > 60 && last[e] > 0.07) {
          const label = { x: upper.at(-1)[0] - 8, y: chart.y(high.at(-1) - last[e] / 2) + 4, fill: inkOn(color) };
          chart.picture.append(shape("text", { ...label, class: "taste-on", "text-anchor": "middle" }, String(e)));
        }
        low = high;
      });
      return chart.root;
    }

    losses(steps) {
      const labels = { 0.6: "4", 0: "1", "-1": "0.1", "-2": "0.01" };
      const [low, high] = [-2.5, 0.7]; // of the logarithm to base 10
      const now = this.latest ? fixed(this.latest.taskLoss, 3) : "not begun";
      const alt = `Task loss over ${this.history.length} steps, logarithmic; now ${now}`;
      const unit = "error / target; grey: the run before";
      const chart = frame("What it costs", alt, steps, [low, high], labels, unit);
      const line = (values, className) => {
        const at = thin(values.length).filter((i) => i < steps);
        const inside = (loss) => Math.min(high, Math.max(low, Math.log10(loss)));
        const points = at.map((i) => [chart.x(i + 1), chart.y(inside(values[i]))]);
        chart.picture.append(shape("path", { d: path(points), class: className }));
      };
      for (const step of this.changes) {
        const [x, y1, y2] = [chart.x(step), chart.y(high), chart.y(low)];
        chart.picture.append(shape("line", { class: "taste-change", x1: x, x2: x, y1, y2 }));
      }
      line(this.before, "taste-before");
      const losses = this.history.map((step) => step.taskLoss);
      line(losses, "taste-line");
      return chart.root;
    }

    deaths(steps) {
      const labels = { 0: "0", 2: "2", 4: "4", 6: "6", 8: "8" };
      const counts_SE = this.history.map((step) => step.counts_E);
      const alt = `Dead experts over ${this.history.length} steps; now ${this.latest?.dead ?? 0}`;
      const unit = "less than a tenth of the fair load over 25 steps";
      const chart = frame("Dead experts", alt, steps, [0, 8], labels, unit);
      const at = thin(counts_SE.length, 120);
      const points = at.map((i) => {
        const gone = dead(counts_SE.slice(Math.max(0, i - 24), i + 1)).filter(Boolean).length;
        return [chart.x(i + 1), chart.y(gone)];
      });
      chart.picture.append(shape("path", { d: path(points), class: "taste-line" }));
      return chart.root;
    }

    /** A square for each expert and subject; its area is the share of the subject's points that the expert gets. */
    who() {
      const cell = (HEIGHT - BOTTOM - TOP) / EXPERTS;
      const latest = this.history.at(-1);
      const gone = this.history.length ? dead(this.history.map((step) => step.counts_E)) : [];
      const served = latest?.counts_EG.map((counts_G) => counts_G.filter((n) => n > 0).length) ?? [];
      const alt = `Subjects that each expert works on: ${served.join(", ") || "none yet"}`;
      const picture = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": alt });
      const [left, step] = [82, 26];
      for (let e = 0; e < EXPERTS; e++) {
        const y = TOP + (e + 0.5) * cell;
        const state = gone[e] ? "taste-gone" : "";
        picture.append(shape("text", { x: 4, y: y + 4, class: state }, `expert ${e}`));
        if (gone[e]) picture.append(shape("text", { x: left + 8 * step + 6, y: y + 4 }, "dead"));
        for (let g = 0; g < EXPERTS; g++) {
          const share = latest ? (latest.counts_EG[e][g] * EXPERTS) / this.lab.points : 0;
          const [x, side] = [left + (g + 0.5) * step, Math.sqrt(share) * (cell - 3)];
          picture.append(shape("circle", { cx: x, cy: y, r: 1, class: "taste-dot" }));
          const box = { x: x - side / 2, y: y - side / 2, width: side, height: side, fill: EXPERT_COLORS[e] };
          if (side > 0) picture.append(shape("rect", { ...box, class: "taste-box" }));
        }
      }
      for (let g = 0; g < EXPERTS; g++) {
        const foot = { x: left + (g + 0.5) * step, y: HEIGHT - 10, "text-anchor": "middle" };
        picture.append(shape("text", foot, String(g)));
      }
      picture.append(shape("text", { x: 4, y: HEIGHT - 10 }, "subject"));
      const unit = element("small", {}, "area: share of a subject’s points");
      return element("figure", {}, element("figcaption", {}, "Who works on what", unit), picture);
    }
  }

  const root = document.getElementById("collapse-lab");
  if (root) taste.lab = { current: new Page(root), PRESETS, RUN };
})();
