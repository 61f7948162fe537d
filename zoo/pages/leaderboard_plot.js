"use strict";
// Clean against robust accuracy: one colour a method, one marker a protocol. No text is
// ever turned into markup here.
const INTERVALS = 150; // points that still get theirs
const COLOURS = 12; // in the style sheet; further methods share the last, grey one
const SVG = "http://www.w3.org/2000/svg";
const SINGLE = 1000; // points that still are elements of their own, to be pressed
const SHAPES = [ // one a protocol, from its middle
  "m5 0a5 5 0 1 1-10 0a5 5 0 1 1 10 0z", "m0-6l6 11h-12z", "m-5-5h10v10h-10z", "m0-7l6 7l-6 7l-6-7z",
  "m0 6l6-11h-12z", "m-2-6h4v4h4v4h-4v4h-4v-4h-4v-4h4z", "m0-7l2 5l5 2l-5 2l-2 5l-2-5l-5-2l5-2z",
  "m-6-4l2-2l4 4l4-4l2 2l-4 4l4 4l-2 2l-4-4l-4 4l-2-2l4-4z"];

function make(name, fields = {}, ...children) {
  const element = Object.assign(document.createElement(name), fields);
  element.append(...children);
  return element;
}

function draw(name, attributes, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

// The picture: axes hold all entries of the task, so that filters do not move them.
//   all, shown: rows of the task, and those that match.
//   methods, protocols: their names, the most frequent or best known first.
//   chosen: the one method that is shown, if any.
//   open(row), choose(method): what a press on a point or on a method does.
function plot({ all, shown, methods, protocols, chosen, open, choose }) {
  const axis = (name, start, end) => {
    const of = (key, extreme, none) => all.reduce((found, row) => extreme(found, row[key]), none);
    const low = Math.floor(of(`${name}_low`, Math.min, 100) / 10) * 10;
    const high = Math.max(Math.ceil(of(`${name}_high`, Math.max, 0) / 10) * 10, low + 10);
    const place = (value) => start + (end - start) * (value - low) / (high - low);
    const step = high - low > 35 ? 10 : 5;
    const ticks = Array.from({ length: Math.round((high - low) / step) + 1 }, (_, i) => low + i * step);
    return { place, ticks };
  };
  const x = axis("clean", 56, 704), y = axis("robust", 354, 12);
  const text = (at, content, rest = {}) => draw("text", { ...at, ...rest }, content);
  const grid = draw("g", { class: "grid", "aria-hidden": "true" },
    ...x.ticks.flatMap((tick) => [
      draw("line", { x1: x.place(tick), x2: x.place(tick), y1: 354, y2: 12 }),
      text({ x: x.place(tick), y: 372 }, `${tick}`, { "text-anchor": "middle" })]),
    ...y.ticks.flatMap((tick) => [
      draw("line", { x1: 56, x2: 704, y1: y.place(tick), y2: y.place(tick) }),
      text({ x: 48, y: y.place(tick) + 4 }, `${tick}`, { "text-anchor": "end" })]),
    text({ x: 380, y: 394 }, "clean accuracy", { class: "axis", "text-anchor": "middle" }),
    text({ x: 14, y: 183 }, "robust accuracy",
      { class: "axis", "text-anchor": "middle", transform: "rotate(-90 14 183)" }));
  const colour = new Map(methods.map((name, i) => [name, `colour-${Math.min(i, COLOURS)}`]));
  const shape = new Map(protocols.map((name, i) => [name, SHAPES[Math.min(i, SHAPES.length - 1)]]));
  const path = (row) => `M${x.place(row.clean).toFixed(1)} ${y.place(row.robust).toFixed(1)}${shape.get(row.protocol)}`;
  const point = (row) => {
    const [cx, cy] = [x.place(row.clean), y.place(row.robust)];
    const found = draw("g", { class: `point ${colour.get(row.method)}` },
      draw("title", {}, `${row.e.name}, ${row.protocol}: clean ${row.clean.toFixed(1)}, robust ${row.robust.toFixed(1)}`));
    if (shown.length <= INTERVALS) {
      found.append(
        draw("line", { x1: x.place(row.clean_low), x2: x.place(row.clean_high), y1: cy, y2: cy }),
        draw("line", { x1: cx, x2: cx, y1: y.place(row.robust_low), y2: y.place(row.robust_high) }));
    }
    found.append(draw("path", { d: path(row) }));
    found.addEventListener("click", () => open(row));
    return found;
  };
  const crowd = () => [...new Set(colour.values())].map((name) => draw("g", { class: `crowd ${name}` },
    draw("path", { d: shown.filter((row) => colour.get(row.method) === name).map(path).join("") })));
  const points = shown.length <= SINGLE ? shown.map(point) : crowd();
  document.getElementById("plot").replaceChildren(grid, ...points);
  const mark = (d) => draw("svg", { viewBox: "-8 -8 16 16", "aria-hidden": "true" }, draw("path", { d: `M0 0${d}` }));
  document.getElementById("protocols").replaceChildren(
    ...protocols.map((name) => make("li", {}, mark(shape.get(name)), ` ${name}`)));
  const named = methods.slice(0, COLOURS).map((name) => {
    const button = make("button", { type: "button" }, mark(SHAPES[0]), make("span", { textContent: ` ${name}` }));
    button.setAttribute("aria-pressed", String(chosen === name));
    button.addEventListener("click", () => choose(name));
    return make("li", { className: colour.get(name) }, button);
  });
  if (methods.length > COLOURS) {
    named.push(make("li", { className: `colour-${COLOURS}` }, mark(SHAPES[0]), " other methods"));
  }
  document.getElementById("methods").replaceChildren(...named);
}
