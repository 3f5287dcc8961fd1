"use strict";
/* "You are the router": tokens arrive, the learner sends each to k experts, and routers do the same beside it. */
(() => {
  const { routing } = taste;
  const { EXPERT_COLORS, inkOn, element, button, slider, fixed, count } = taste.page;
  const EXPERTS = 4;
  const SENTENCES = [
    "twelve tokens walk into a layer and some find no free seat",
    "my grandmother bakes bread at dawn and solves equations after her coffee",
    "the cat sat on the router and every packet went to sleep",
    "a good queue is short , fair , and full of patience",
    "nobody told the busiest expert that three others had nothing to do",
  ].map((text) => text.split(" "));
  const FILLS = {
    "token-major": "token by token",
    "choice-major": "all first choices, then all second ones",
    priority: "largest first gate first",
  };
  const HEADS = ["Gates kept", "Dropped", "Max violation", "Loss f·P"];
  // Scores have a part that all tokens share, so that some experts are popular, and a part of their own.
  const [SHARED, OWN] = [1.0, 1.2];
  const [BIAS_RATE, BIAS_STEPS] = [0.01, 200];

  /** The tokens of a seed: words, and the router's probabilities for them. */
  function deal(seed) {
    const source = taste.random.source(seed);
    const words = SENTENCES[seed % SENTENCES.length];
    const shared_E = Array.from(source.normal(EXPERTS), (z) => SHARED * z);
    const logits_TE = words.map(() => Array.from(source.normal(EXPERTS), (z, e) => OWN * z + shared_E[e]));
    return { words, logits_TE, probs_TE: logits_TE.map(routing.softmax) };
  }

  /** What each router chooses for the same tokens, by name. */
  function rivals(probs_TE, k, room) {
    return {
      [`Top-${k}`]: routing.topK(probs_TE, k),
      [`Top-${k} + bias`]: routing.topK(probs_TE, k, routing.learnedBias(probs_TE, k, BIAS_RATE, BIAS_STEPS)),
      "Expert choice": routing.expertChoice(probs_TE, Math.min(room, probs_TE.length)),
      "Best possible": routing.best(probs_TE, k, room),
    };
  }

  class Game {
    constructor(root) {
      this.root = root;
      Object.assign(this, { k: 1, factor: 1, seed: 0, fill: "token-major", shown: "You" });
      this.build();
      this.start();
    }

    start() {
      Object.assign(this, deal(this.seed));
      this.mine = [];
      this.shown = "You";
      this.render();
    }

    get room() {
      return routing.capacity(this.words.length, EXPERTS, this.k, this.factor);
    }

    /** The token whose turn it is; the number of tokens when all have been sent. */
    get turn() {
      return Math.floor(this.mine.length / this.k);
    }

    get over() {
      return this.turn === this.words.length;
    }

    seat(assignments) {
      return routing.seat(assignments, this.fill, EXPERTS, this.room);
    }

    /** The sum of the gates of those assignments that find a slot. */
    kept(assignments) {
      return routing.measure(this.seat(assignments), this.probs_TE).quality;
    }

    send(expert) {
      if (this.shown !== "You") {
        this.shown = "You";
        return this.render("This is your own board again.");
      }
      const token = this.turn;
      if (this.over) return this.render(this.verdict());
      if (this.mine.some((a) => a.token === token && a.expert === expert)) {
        return this.render(`Expert ${expert} has “${this.words[token]}” already. Choose another one.`);
      }
      const before = this.seat(this.mine);
      this.mine.push({ token, slot: this.mine.length % this.k, expert, gate: this.probs_TE[token][expert] });
      const after = this.seat(this.mine);
      this.render(this.news(before, after));
    }

    /** What the last choice did: its seat, and whom it pushed out of one. */
    news(before, after) {
      const { token, slot, expert } = this.mine.at(-1);
      const same = (a, b) => a.token === b.token && a.slot === b.slot;
      const seat = after.find((a) => same(a, { token, slot }));
      const lost = before.find((b) => b.kept && after.some((a) => same(a, b) && !a.kept));
      const word = `“${this.words[token]}”`;
      const what = seat.kept
        ? `${word} has slot ${seat.place + 1} of ${this.room} at expert ${expert}.`
        : `Expert ${expert} is full: ${word} is dropped there.`;
      const pushed = lost ? ` It pushed out “${this.words[lost.token]}”.` : "";
      return what + pushed + (this.over ? ` ${this.verdict()}` : "");
    }

    verdict() {
      const mine = this.kept(this.mine);
      const others = Object.entries(rivals(this.probs_TE, this.k, this.room));
      const top = this.kept(others.at(-1)[1]);
      if (mine > top - 1e-9) return "You kept as much as is possible. Perfect!";
      const beaten = others.slice(0, -1).filter(([, assignments]) => mine > this.kept(assignments) + 1e-9);
      const names = beaten.map(([name]) => name.toLowerCase()).join(" and ");
      const ahead = names ? `, more than ${names}` : "";
      return `You kept ${Math.floor((100 * mine) / top)}% of what is possible${ahead}.`;
    }

    undo() {
      this.shown = "You";
      const last = this.mine.pop();
      this.render(last ? `“${this.words[last.token]}” is back.` : "There is nothing to undo.");
    }

    /** The rest of the tokens goes where their probabilities are largest. */
    finish() {
      const done = this.turn * this.k;
      if (this.over) return this.render(this.verdict());
      const rest = routing.topK(this.probs_TE, this.k).filter((a) => a.token >= this.turn);
      this.mine = [...this.mine.slice(0, done), ...rest];
      this.shown = "You";
      this.render(this.verdict());
    }

    build() {
      const restart = (name) => (value) => ((this[name] = value), this.start());
      const order = element(
        "select",
        { id: "taste-fill", change: () => ((this.fill = order.value), this.render()) },
        ...Object.entries(FILLS).map(([value, text]) => element("option", { value }, text)),
      );
      this.seeds = slider("Seed (other tokens)", [...Array(100).keys()], 0, restart("seed"));
      const settings = element(
        "div",
        { class: "taste-settings" },
        slider("k, experts a token", [1, 2, 3], 1, restart("k")).root,
        slider("Capacity factor", [0.5, 0.75, 1, 1.25, 1.5, 2], 1, (f) => ((this.factor = f), this.render())).root,
        this.seeds.root,
        element("div", { class: "taste-slider" }, element("label", { for: "taste-fill" }, "Who queues first"), order),
      );
      this.sentence = element("ol", { class: "taste-sentence", "aria-label": "The tokens, in order of arrival" });
      this.prompt = element("p", { class: "taste-prompt" });
      this.meter = element("p", { class: "taste-meter" });
      this.lanes = Array.from({ length: EXPERTS }, (_, e) => this.lane(e));
      this.live = element("p", { class: "taste-live", role: "status" });
      const actions = element(
        "div",
        { class: "taste-actions" },
        button("Undo", () => this.undo()),
        button("Start over", () => (this.start(), this.say("The board is empty again."))),
        button("Top-k for the rest", () => this.finish()),
        button("New tokens", () => this.next()),
      );
      this.scores = element("tbody");
      const heads = ["Router", ...HEADS].map((head) => element("th", { scope: "col" }, head));
      const table = element(
        "table",
        { class: "taste-scores" },
        element("caption", {}, "The same tokens, other routers. Press a name to see its choice on the board."),
        element("thead", {}, element("tr", {}, ...heads)),
        this.scores,
      );
      const names = ["You", ...Object.keys(rivals([new Array(EXPERTS).fill(0.25)], 1, 1))];
      this.rows = names.map((_, row) => this.row(row));
      this.insight = element("ul", { class: "taste-insight" });
      this.roomText = element("p", { class: "taste-note" });
      this.root.addEventListener("keydown", (event) => this.key(event));
      this.root.replaceChildren(
        this.sentence,
        this.prompt,
        this.roomText,
        element("div", { class: "taste-lanes" }, ...this.lanes.map((lane) => lane.root)),
        this.meter,
        this.live,
        actions,
        settings,
        table,
        this.insight,
      );
    }

    next() {
      this.seed = (this.seed + 1) % 100;
      this.seeds.set(this.seed);
      this.start();
      this.say("New tokens have arrived.");
    }

    lane(e) {
      const share = element("span", { class: "taste-share" });
      const bar = element("span", { class: "taste-bar", style: `--color: ${EXPERT_COLORS[e]}` }, element("span"));
      const send = button("", () => this.send(e));
      send.classList.add("taste-send");
      send.append(element("span", {}, `Expert ${e}`), share, bar);
      const slots = element("ol", { class: "taste-slots" });
      return { root: element("div", { class: "taste-lane" }, send, slots), send, share, bar, slots };
    }

    /** A row of the table stays the same element, so that its button keeps the focus. */
    row(at) {
      const name = button("", () => ((this.shown = this.entries()[at][0]), this.render()));
      const cells = HEADS.map(() => element("td"));
      const root = element("tr", {}, element("th", { scope: "row" }, name), ...cells);
      this.scores.append(root);
      return { root, name, cells };
    }

    entries() {
      return [["You", this.mine], ...Object.entries(rivals(this.probs_TE, this.k, this.room))];
    }

    /** Keys 0 to 3 send the token, Backspace takes it back; only while something in the game has the focus. */
    key(event) {
      if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select")) return;
      if (/^[0-3]$/.test(event.key)) this.send(Number(event.key));
      else if (event.key === "Backspace") this.undo();
      else return;
      event.preventDefault();
    }

    say(text) {
      this.live.textContent = text;
    }

    render(news = "") {
      const entries = this.entries();
      const shown = Object.fromEntries(entries)[this.shown] ? this.shown : "You";
      this.shown = shown;
      const seated = this.seat(Object.fromEntries(entries)[shown]);
      this.renderSentence(seated);
      this.renderLanes(seated);
      const kept_R = entries.map(([, assignments]) => this.kept(assignments));
      entries.forEach(([name, assignments], row) => this.renderRow(row, name, assignments, Math.max(...kept_R)));
      this.meter.textContent = `Gates kept: ${fixed(kept_R[0], 2)} of ${fixed(kept_R.at(-1), 2)} that are possible.`;
      this.meter.style.setProperty("--part", `${(100 * kept_R[0]) / kept_R.at(-1)}%`);
      this.renderInsight(Object.fromEntries(entries));
      this.say(news);
    }

    renderSentence(seated) {
      const current = this.shown === "You" && !this.over ? this.turn : -1;
      const items = this.words.map((word, t) => {
        const seats = seated.filter((a) => a.token === t);
        const kept = seats.filter((a) => a.kept);
        const state = seats.length === 0 ? "" : kept.length ? "served" : "lost";
        const bars = this.probs_TE[t].map((p, e) => {
          const mark = kept.some((a) => a.expert === e) ? "taste-chosen" : "";
          return element("span", { class: mark, style: `height: ${100 * p}%; background: ${EXPERT_COLORS[e]}` });
        });
        const said = this.probs_TE[t].map((p, e) => `expert ${e} ${fixed(p, 2)}`).join(", ");
        const item = element(
          "li",
          { class: `taste-token ${state}` },
          element("span", { class: "taste-bars", "aria-hidden": "true" }, ...bars),
          element("span", { class: "taste-word" }, word),
          element("span", { class: "taste-hidden" }, `: ${said}${state === "lost" ? "; dropped" : ""}`),
        );
        if (t === current) item.setAttribute("aria-current", "step");
        return item;
      });
      this.sentence.replaceChildren(...items);
    }

    renderLanes(seated) {
      const { room, k } = this;
      const playing = this.shown === "You" && !this.over;
      const taken = this.mine.filter((a) => a.token === this.turn).map((a) => a.expert);
      const word = element("b", {}, `“${this.words[this.turn] ?? ""}”`);
      const which = k === 1 ? "" : ` Choice ${(this.mine.length % k) + 1} of ${k}.`;
      const all = this.shown === "You" ? ["All tokens have been sent."] : [`The choice of: ${this.shown}`];
      this.prompt.replaceChildren(...(playing ? ["Where does ", word, ` go?${which}`] : all));
      this.lanes.forEach((lane, e) => {
        const p = playing ? this.probs_TE[this.turn][e] : 0;
        lane.share.textContent = playing ? fixed(p, 2) : "";
        lane.bar.firstChild.style.width = `${100 * p}%`;
        lane.send.setAttribute("aria-disabled", String(!playing || taken.includes(e)));
        const queue = seated.filter((a) => a.expert === e);
        const chips = queue.map((a) => this.chip(a));
        const free = Array.from({ length: Math.max(0, room - queue.length) }, () =>
          element("li", { class: "taste-slot" }, element("span", { class: "taste-hidden" }, "free slot")),
        );
        lane.slots.replaceChildren(...chips.slice(0, room), ...free, ...chips.slice(room));
        lane.slots.setAttribute("aria-label", `Queue of expert ${e}`);
      });
      const T = this.words.length;
      this.roomText.textContent =
        `C = ⌈T·k/E · factor⌉ = ⌈${T}·${k}/${EXPERTS} · ${this.factor}⌉ = ${room}: ` +
        `every expert has ${count(room, "slot")}. ${count(T * k, "choice")} for ${count(EXPERTS * room, "slot")}.`;
    }

    chip(a) {
      const color = EXPERT_COLORS[a.expert];
      const look = a.kept ? `background: ${color}; color: ${inkOn(color)}` : "";
      const choice = this.k > 1 && this.shown !== "Expert choice" ? element("small", {}, ` ${a.slot + 1}`) : "";
      const gone = a.kept ? "" : element("span", { class: "taste-hidden" }, ", dropped");
      const state = a.kept ? "taste-kept" : "taste-dropped";
      return element("li", { class: `taste-slot ${state}`, style: look }, this.words[a.token], choice, gone);
    }

    renderRow(row, name, assignments, most) {
      const { name: label, cells, root } = this.rows[row];
      // While the game runs, the balance is that of the tokens sent so far.
      const sent = name === "You" ? this.probs_TE.slice(0, Math.ceil(this.mine.length / this.k)) : this.probs_TE;
      const m = routing.measure(this.seat(assignments), sent.length ? sent : this.probs_TE);
      const empty = assignments.length === 0;
      label.textContent = name;
      label.setAttribute("aria-pressed", String(name === this.shown));
      root.classList.toggle("taste-mine", name === "You");
      const texts = [
        fixed(m.quality, 2),
        m.dropped,
        empty ? "–" : fixed(m.violation, 2),
        empty ? "–" : fixed(m.loss, 2),
      ];
      cells.forEach((cell, i) => (cell.textContent = texts[i]));
      cells[0].style.setProperty("--part", `${(100 * m.quality) / most}%`);
    }

    /** What the comparison shows on these tokens, once the learner has played. */
    renderInsight(choices) {
      const facts = [];
      if (this.over) {
        const measured = Object.values(choices).map((a) => routing.measure(this.seat(a), this.probs_TE));
        const [mine, greedy, biased] = measured;
        if (mine.loss < 0.995 && mine.violation > 0) {
          facts.push(
            `Your loss f·P is ${fixed(mine.loss, 2)}, below the 1 of an even load, and your load is not even. ` +
              "The experts that you chose have small mean probabilities. The loss alone does not tell how even a load is.",
          );
        }
        const top = greedy.counts.indexOf(Math.max(...greedy.counts));
        if (greedy.dropped) {
          facts.push(
            `Top-${this.k} takes the largest gates one token at a time: ${count(greedy.counts[top], "choice")} ` +
              `fall on expert ${top}, which has ${count(this.room, "slot")}. It drops ${greedy.dropped} in all.`,
          );
        }
        if (biased.violation === 0) {
          facts.push(
            "The bias made the load even, and no other choice with an even load has larger gates: a bias acts " +
              "like a price for a seat at a popular expert.",
          );
        }
        const chosen = routing.counts(
          choices["Expert choice"].map((a) => ({ expert: a.token })),
          this.words.length,
        );
        const most = Math.max(...chosen);
        const none = chosen.filter((n) => n === 0).length;
        if (most > this.k || none) {
          const rest = none === 0 ? "none goes without" : `${none} ${none === 1 ? "has" : "have"} none`;
          const crowd = `one token has ${count(most, "expert")}, and ${rest}`;
          facts.push(
            `Expert choice fills every slot and counts no k: ${crowd}. So it can keep more than the best choice ` +
              "with k experts. To choose for the first token, it had to look at the last one.",
          );
        }
      }
      this.insight.replaceChildren(...facts.map((text) => element("li", {}, text)));
    }
  }

  taste.game = { deal, rivals, BIAS_RATE, BIAS_STEPS };
  const root = document.getElementById("router-game");
  if (root) taste.game.current = new Game(root);
})();
