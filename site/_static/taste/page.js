"use strict";
/* What both pages are made of: elements, sliders, numbers, and the experts' colours. */
(() => {
  globalThis.taste ??= {};
  // As in moe_course/viz/style.py, which says where they come from; a test compares.
  const EXPERT_COLORS = ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#F0E442"];

  /** Black or white, whichever is easier to read on a colour (WCAG 2.1, relative luminance). */
  function inkOn(color) {
    const channels = [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16) / 255);
    const linear = channels.map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    const luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
    return (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) ? "black" : "white";
  }

  function fill(node, attributes, children) {
    for (const [name, value] of Object.entries(attributes)) {
      if (typeof value === "function") node.addEventListener(name, value);
      else node.setAttribute(name, value);
    }
    node.append(...children);
    return node;
  }

  /** An element; an attribute that is a function listens to the event of that name. */
  const element = (name, attributes = {}, ...children) =>
    fill(document.createElement(name), attributes, children);
  const shape = (name, attributes = {}, ...children) =>
    fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);

  const button = (label, click) => element("button", { type: "button", class: "taste-button", click }, label);

  /** A slider over some values, with its label and its value beside it. Returns {root, set}. */
  function slider(label, values, value, changed) {
    const id = `taste-${label.toLowerCase().replace(/\W+/g, "-")}`;
    const output = element("output", { for: id });
    const say = () => {
      output.textContent = String(values[input.value]);
      input.setAttribute("aria-valuetext", output.textContent);
    };
    const input = element("input", {
      ...{ type: "range", id, min: 0, max: values.length - 1, step: 1, value: values.indexOf(value) },
      input: () => (say(), changed(values[input.value])),
    });
    say();
    const root = element("div", { class: "taste-slider" }, element("label", { for: id }, label), output, input);
    return { root, set: (next) => ((input.value = values.indexOf(next)), say()) };
  }

  /** A number with a minus sign that is one, and no -0. */
  const fixed = (value, digits) => {
    const text = value.toFixed(digits);
    return Number(text) === 0 ? (0).toFixed(digits) : text.replace("-", "−");
  };

  const count = (n, noun) => `${n} ${noun}${n === 1 ? "" : "s"}`;

  taste.page = { EXPERT_COLORS, inkOn, element, shape, button, slider, fixed, count };
})();
