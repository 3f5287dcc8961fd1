"use strict";
/*
 * What routers compute, in the arithmetic of moe_course.moe; tests compare the two.
 *
 * Axes as in the course: T tokens, E experts, K choices of a token. An assignment is a token's choice of an
 * expert: {token, slot, expert, gate}, with slot 0 for the first choice, and the plain probability as its gate.
 * Functions take a list of assignments and not idx_TK: before a game is over, and where experts choose, there is
 * no such matrix.
 */
(() => {
  globalThis.taste ??= {};
  const sum = (values) => values.reduce((total, value) => total + value, 0);

  /** Indices from the largest value to the smallest; equal values keep the order of their index. */
  const descending = (values) => Array.from(values.keys()).sort((a, b) => values[b] - values[a] || a - b);

  function softmax(logits_E) {
    const top = Math.max(...logits_E);
    const exp_E = logits_E.map((z) => Math.exp(z - top));
    const total = sum(exp_E);
    return exp_E.map((e) => e / total);
  }

  /** C = ceil(T·K/E · factor); nine decimals, so that 1.1 means the decimal number that was written. */
  const capacity = (tokens, experts, k, factor) =>
    Math.ceil(Number(((tokens * k * factor) / experts).toFixed(9)));

  /** Each token's k experts of highest probability + bias; the bias moves the choice and never enters a gate. */
  function topK(probs_TE, k, bias_E = probs_TE[0].map(() => 0)) {
    return probs_TE.flatMap((probs_E, token) =>
      descending(probs_E.map((p, e) => p + bias_E[e]))
        .slice(0, k)
        .map((expert, slot) => ({ token, slot, expert, gate: probs_E[expert] })),
    );
  }

  /** Every expert takes the `room` tokens that give it the highest probability; slots number those of an expert. */
  function expertChoice(probs_TE, room) {
    return probs_TE[0].flatMap((_, expert) =>
      descending(probs_TE.map((probs_E) => probs_E[expert]))
        .slice(0, room)
        .map((token, slot) => ({ token, slot, expert, gate: probs_TE[token][expert] })),
    );
  }

  function counts(assignments, experts) {
    const counts_E = new Array(experts).fill(0);
    for (const { expert } of assignments) counts_E[expert] += 1;
    return counts_E;
  }

  /** b + rate·sign(mean(n) − n), with nothing divided, so that an even load moves nothing. */
  function updateBias(bias_E, counts_E, rate) {
    const total = sum(counts_E);
    return bias_E.map((b, e) => b + rate * Math.sign(total - counts_E.length * counts_E[e]));
  }

  /** The bias after `steps` updates, each from the load that the bias before it gives these tokens. */
  function learnedBias(probs_TE, k, rate, steps) {
    let bias_E = probs_TE[0].map(() => 0);
    for (let step = 0; step < steps; step++) {
      bias_E = updateBias(bias_E, counts(topK(probs_TE, k, bias_E), bias_E.length), rate);
    }
    return bias_E;
  }

  /** max/mean − 1 of loads or counts; 0 where there is nothing yet. */
  function maxViolation(counts_E) {
    const total = sum(counts_E);
    return total === 0 ? 0 : (Math.max(...counts_E) * counts_E.length) / total - 1;
  }

  /** E·Σ f·P: f the fraction of assignments, P the mean probability of these tokens; 0 where there is nothing yet. */
  function balancingLoss(probs_TE, counts_E) {
    const total = sum(counts_E);
    if (total === 0) return 0;
    const P_E = counts_E.map((_, e) => sum(probs_TE.map((probs_E) => probs_E[e])) / probs_TE.length);
    return counts_E.length * sum(counts_E.map((n, e) => (n / total) * P_E[e]));
  }

  const inOrder = {
    "token-major": (a, b) => a.token - b.token || a.slot - b.slot,
    "choice-major": (a, b) => a.slot - b.slot || a.token - b.token,
  };

  /** The assignments in the order in which they queue. Priority is choice-major by descending first gate. */
  function queue(assignments, fill) {
    const first = new Map(assignments.filter((a) => a.slot === 0).map((a) => [a.token, a.gate]));
    const byPriority = (a, b) =>
      a.slot - b.slot || first.get(b.token) - first.get(a.token) || a.token - b.token;
    return [...assignments].sort(fill === "priority" ? byPriority : inOrder[fill]);
  }

  /** Each assignment with its place in its expert's queue, from 0, and whether it is kept: whether place < room. */
  function seat(assignments, fill, experts, room) {
    const next_E = new Array(experts).fill(0);
    return queue(assignments, fill).map((a) => {
      const place = next_E[a.expert]++;
      return { ...a, place, kept: place < room };
    });
  }

  /** What came of it: quality (the sum of the gates kept), drops, tokens that nobody serves, and the balance. */
  function measure(seated, probs_TE) {
    const counts_E = counts(seated, probs_TE[0].length);
    const kept = seated.filter((a) => a.kept);
    const served = new Set(kept.map((a) => a.token));
    return {
      quality: sum(kept.map((a) => a.gate)),
      dropped: seated.length - kept.length,
      unserved: probs_TE.length - served.size,
      counts: counts_E,
      violation: maxViolation(counts_E),
      loss: balancingLoss(probs_TE, counts_E),
    };
  }

  /**
   * The choice that keeps most, with at most k experts a token and `room` tokens an expert.
   *
   * A flow of maximal weight: choices are added one by one, each along the path that gains most. A path may take a
   * token away from an expert and send it to another one.
   */
  function best(probs_TE, k, room) {
    const tokens = probs_TE.length;
    const experts = probs_TE[0].length;
    const chosen_TE = probs_TE.map((probs_E) => probs_E.map(() => false));
    const used = (t) => chosen_TE[t].filter(Boolean).length;
    const load = (e) => chosen_TE.filter((chosen_E) => chosen_E[e]).length;
    for (;;) {
      const gain_T = probs_TE.map((_, t) => (used(t) < k ? 0 : -Infinity));
      const gain_E = new Array(experts).fill(-Infinity);
      const from_T = new Array(tokens).fill(-1);
      const from_E = new Array(experts).fill(-1);
      for (let changed = true; changed; ) {
        changed = false;
        for (let t = 0; t < tokens; t++) {
          for (let e = 0; e < experts; e++) {
            const p = probs_TE[t][e];
            // The margin keeps rounding from going round in a circle for ever.
            if (!chosen_TE[t][e] && gain_T[t] + p > gain_E[e] + 1e-12) {
              [gain_E[e], from_E[e], changed] = [gain_T[t] + p, t, true];
            } else if (chosen_TE[t][e] && gain_E[e] - p > gain_T[t] + 1e-12) {
              [gain_T[t], from_T[t], changed] = [gain_E[e] - p, e, true];
            }
          }
        }
      }
      const open = descending(gain_E).filter((e) => load(e) < room);
      if (open.length === 0 || !(gain_E[open[0]] > 0)) break;
      for (let e = open[0]; e !== -1; ) {
        const t = from_E[e];
        chosen_TE[t][e] = true;
        e = from_T[t];
        if (e !== -1) chosen_TE[t][e] = false;
      }
    }
    return probs_TE.flatMap((probs_E, token) =>
      descending(probs_E)
        .filter((expert) => chosen_TE[token][expert])
        .map((expert, slot) => ({ token, slot, expert, gate: probs_E[expert] })),
    );
  }

  taste.routing = {
    ...{ softmax, capacity, topK, expertChoice, counts, updateBias, learnedBias, maxViolation, balancingLoss },
    ...{ seat, measure, best },
  };
})();
