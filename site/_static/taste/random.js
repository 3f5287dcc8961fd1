"use strict";
/* Random numbers from a seed, the same in every browser up to the rounding of log and cos. */
(() => {
  globalThis.taste ??= {};

  /** A source of numbers: uniform() in [0, 1), integers(n, below), and n standard normals from normal(n). */
  function source(seed) {
    let state = Math.imul(seed + 1, 0x9e3779b1) >>> 0; // neighbouring seeds start far apart
    // Mulberry32, Tommy Ettinger 2017: 32 bits of state are enough for a page.
    const uniform = () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let z = Math.imul(state ^ (state >>> 15), state | 1);
      z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
      return ((z ^ (z >>> 14)) >>> 0) / 2 ** 32;
    };
    // Box and Muller 1958. 1 − uniform() is never 0, so its logarithm is finite.
    const one = () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
    return {
      uniform,
      integers: (n, below) => Array.from({ length: n }, () => Math.floor(uniform() * below)),
      normal: (n) => Float64Array.from({ length: n }, one),
    };
  }

  taste.random = { source };
})();
