"use strict";
/*
 * The collapse lab of moe_course/lesson/collapse.py: the same problem, sizes and training, with gradients by hand.
 *
 * Points belong to eight subjects with a linear law each, and each of eight experts is one linear map. Routing is
 * top-1 with the plain probability as gate. A test feeds the numbers that Python draws, and compares every step.
 * Matrices are flat Float64Arrays, row by row. Axes: T points, D features, E experts, G subjects, W words.
 */
(() => {
  globalThis.taste ??= {};
  const [SIGNAL, SPREAD, WORDS] = [1.0, 0.5, 8];
  const DEFAULTS = { d: 16, experts: 8, points: 256, learningRate: 0.01, offset: 1.0 };
  const scaled = (values, factor) => values.map((value) => value * factor);

  /** Adam (Kingma and Ba 2015) with PyTorch's defaults; changes `weights` in place. */
  function adam(weights, learningRate) {
    const [beta1, beta2, epsilon] = [0.9, 0.999, 1e-8];
    const mean = new Float64Array(weights.length);
    const square = new Float64Array(weights.length);
    let step = 0;
    return (gradient) => {
      step += 1;
      const size = learningRate / (1 - beta1 ** step);
      const root = Math.sqrt(1 - beta2 ** step);
      for (let i = 0; i < weights.length; i++) {
        mean[i] += (1 - beta1) * (gradient[i] - mean[i]);
        square[i] = beta2 * square[i] + (1 - beta2) * gradient[i] * gradient[i];
        weights[i] -= (size * mean[i]) / (Math.sqrt(square[i]) / root + epsilon);
      }
    };
  }

  class Lab {
    /** source: normal(n) and integers(n, below), asked in the order in which Python draws. */
    constructor(source, settings = {}) {
      Object.assign(this, DEFAULTS, settings);
      const { d, experts } = this;
      this.source = source;
      this.offset_D = source.normal(d);
      this.centre_GD = source.normal(experts * d);
      this.word_GWD = source.normal(experts * WORDS * d);
      this.law_GDD = scaled(source.normal(experts * d * d), 1 / Math.sqrt(d));
      this.router_DE = scaled(source.normal(d * experts), 0.1 / Math.sqrt(d)); // a small start, as in Switch
      this.expert_EDD = scaled(source.normal(experts * d * d), 1 / Math.sqrt(d));
      this.bias_E = new Array(experts).fill(0);
      this.moveRouter = adam(this.router_DE, this.learningRate);
      this.moveExperts = adam(this.expert_EDD, this.learningRate);
    }

    /** New points x_TD and their targets y_TD; the subjects take turns. */
    batch() {
      const { d, experts, points } = this;
      const word_T = this.source.integers(points, WORDS);
      const x_TD = scaled(this.source.normal(points * d), SPREAD);
      const y_TD = new Float64Array(points * d);
      for (let t = 0; t < points; t++) {
        const g = t % experts;
        for (let i = 0; i < d; i++) {
          const word = this.word_GWD[(g * WORDS + word_T[t]) * d + i];
          x_TD[t * d + i] += SIGNAL * this.centre_GD[g * d + i] + SPREAD * word + this.offset * this.offset_D[i];
        }
        multiply(x_TD, t * d, this.law_GDD, g * d * d, d, d, y_TD, t * d);
      }
      return { x_TD, y_TD };
    }

    /** One step of training: the task loss, counts_E, and counts_EG, how often a subject went to an expert. */
    step(lossWeight, biasRate) {
      const { d, experts, points } = this;
      const { x_TD, y_TD } = this.batch();
      const probs_TE = this.probabilities(x_TD);
      const choice_T = probs_TE.map((probs_E) => largest(probs_E, this.bias_E));
      const counts_E = new Array(experts).fill(0);
      const counts_EG = Array.from({ length: experts }, () => new Array(experts).fill(0));
      choice_T.forEach((e, t) => {
        counts_E[e] += 1;
        counts_EG[e][t % experts] += 1;
      });

      const square = y_TD.reduce((total, y) => total + y * y, 0); // Σ y², by which the error is divided
      const [out_D, dOut_D] = [new Float64Array(d), new Float64Array(d)];
      const dExpert_EDD = new Float64Array(this.expert_EDD.length);
      const dRouter_DE = new Float64Array(this.router_DE.length);
      // E·Σ f·P: the gradient with respect to a probability is E·f/T, whoever was chosen
      const pull_E = counts_E.map((n) => (lossWeight * experts * n) / points / points);
      let error = 0;
      for (let t = 0; t < points; t++) {
        const [probs_E, e] = [probs_TE[t], choice_T[t]];
        out_D.fill(0);
        multiply(x_TD, t * d, this.expert_EDD, e * d * d, d, d, out_D, 0);
        let dGate = 0;
        for (let j = 0; j < d; j++) {
          const miss = probs_E[e] * out_D[j] - y_TD[t * d + j];
          const dAnswer = (2 * miss) / square;
          error += miss * miss;
          dGate += dAnswer * out_D[j];
          dOut_D[j] = probs_E[e] * dAnswer;
        }
        const dProbs_E = pull_E.map((pull, j) => pull + (j === e ? dGate : 0));
        const mean = dProbs_E.reduce((total, dp, j) => total + probs_E[j] * dp, 0);
        const dLogits_E = dProbs_E.map((dp, j) => probs_E[j] * (dp - mean)); // the softmax's Jacobian
        for (let i = 0; i < d; i++) {
          const x = x_TD[t * d + i];
          for (let j = 0; j < d; j++) dExpert_EDD[(e * d + i) * d + j] += x * dOut_D[j];
          for (let j = 0; j < experts; j++) dRouter_DE[i * experts + j] += x * dLogits_E[j];
        }
      }
      this.moveExperts(dExpert_EDD);
      this.moveRouter(dRouter_DE);
      this.bias_E = taste.routing.updateBias(this.bias_E, counts_E, biasRate);
      return { taskLoss: error / square, counts_E, counts_EG };
    }

    probabilities(x_TD) {
      const { d, experts, points } = this;
      return Array.from({ length: points }, (_, t) => {
        const logits_E = new Float64Array(experts);
        multiply(x_TD, t * d, this.router_DE, 0, d, experts, logits_E, 0);
        return taste.routing.softmax(logits_E);
      });
    }
  }

  /** Adds row · matrix to out: a row of `rows` numbers, and a matrix of rows × columns, each from its offset on. */
  function multiply(row, rowAt, matrix, matrixAt, rows, columns, out, outAt) {
    for (let i = 0; i < rows; i++) {
      for (let j = 0; j < columns; j++) {
        out[outAt + j] += row[rowAt + i] * matrix[matrixAt + i * columns + j];
      }
    }
  }

  /** The index of the largest p + b, the first one of equals. */
  function largest(probs_E, bias_E) {
    let top = 0;
    for (let e = 1; e < bias_E.length; e++) if (probs_E[e] + bias_E[e] > probs_E[top] + bias_E[top]) top = e;
    return top;
  }

  /** Which experts have less than a tenth of the fair load, on average over the last 25 steps of counts_SE. */
  function dead(counts_SE) {
    const recent_SE = counts_SE.slice(-25);
    const total_E = recent_SE[0].map((_, e) => recent_SE.reduce((total, counts_E) => total + counts_E[e], 0));
    const total = total_E.reduce((a, b) => a + b, 0);
    return total_E.map((n) => n * total_E.length < 0.1 * total);
  }

  taste.collapse = { Lab, dead };
})();
