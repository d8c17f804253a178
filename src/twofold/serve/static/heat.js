// What every router decided: one strip for the question and one for each pair, a row per expert, a column per layer.

const SVG = "http://www.w3.org/2000/svg";
const CELL = 20, ROW = 15, NAME = 74;
const HOT = [224, 119, 47], COLD = [47, 111, 219];

const shape = (tag, attributes) => {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
};

// Colour by how far a weight is from an equal share, as a share of the farthest of all strips.
function colour(weight, even, farthest) {
  const off = farthest ? (weight - even) / farthest : 0;
  const [r, g, b] = off >= 0 ? HOT : COLD;
  return { fill: `rgb(${r} ${g} ${b})`, "fill-opacity": Math.min(1, Math.abs(off)).toFixed(3) };
}

function evenShare(weights) {
  const values = Object.values(weights);
  return values.reduce((sum, value) => sum + value, 0) / Math.max(values.length, 1);
}

// "encoder.layer.3.attention.self.query" → ["3", "query"]
function shortName(layer) {
  const words = layer.split(".");
  return [words.find((word) => /^\d+$/.test(word)) ?? "", words.filter((word) => !["self", "dense"].includes(word)).slice(-1)[0], layer];
}

function strip(label, routing, experts, farthest, readout, first) {
  const layers = Object.keys(routing), row = document.createElement("div"), name = document.createElement("div");
  row.className = first ? "strip first" : "strip";
  name.className = "of";
  name.textContent = name.title = label;
  const height = experts.length * ROW + (first ? 14 : 0);
  const svg = shape("svg", { viewBox: `0 0 ${NAME + layers.length * CELL} ${height}`, tabindex: 0, role: "img" });
  svg.setAttribute("aria-label", `${label}: ${experts.map((each) => `${each} ${mean(routing, each).toFixed(2)}`).join(", ")}`);
  experts.forEach((expert, y) => {
    svg.append(Object.assign(shape("text", { x: NAME - 8, y: y * ROW + 11, "text-anchor": "end" }), { textContent: expert }));
    layers.forEach((layer, x) => {
      const weight = routing[layer][expert];
      const place = { x: NAME + x * CELL, y: y * ROW, width: CELL - 1.5, height: ROW - 1.5, rx: 2 };
      svg.append(shape("rect", { ...place, class: "zero" }));
      if (weight === undefined) return;
      const cell = shape("rect", { ...place, ...colour(weight, evenShare(routing[layer]), farthest), class: "cell", "data-x": x, "data-y": y });
      svg.append(cell);
    });
  });
  if (first) blocks(svg, layers, experts.length * ROW + 11);
  watch(svg, layers, experts, routing, label, readout);
  const scroll = document.createElement("div");
  scroll.className = "scroll";
  scroll.append(svg);
  row.append(name, scroll);
  return row;
}

// Where each block of the model begins.
function blocks(svg, layers, y) {
  let before = null;
  layers.forEach((layer, x) => {
    const [block] = shortName(layer);
    if (block !== before) svg.append(Object.assign(shape("text", { x: NAME + x * CELL, y }), { textContent: `block ${block}` }));
    before = block;
  });
}

function watch(svg, layers, experts, routing, label, readout) {
  let x = 0, y = 0;
  const tell = () => {
    svg.querySelector(".at")?.classList.remove("at");
    svg.querySelector(`[data-x="${x}"][data-y="${y}"]`)?.classList.add("at");
    const weight = routing[layers[x]][experts[y]];
    readout.textContent = `${layers[x]}: ${experts[y]} ${weight === undefined ? "is not seen here" : weight.toFixed(3)} · ${label}`;
  };
  svg.addEventListener("mouseover", (event) => {
    if (!event.target.dataset.x) return;
    [x, y] = [Number(event.target.dataset.x), Number(event.target.dataset.y)];
    tell();
  });
  svg.addEventListener("focus", tell);
  svg.addEventListener("blur", () => svg.querySelector(".at")?.classList.remove("at"));
  svg.addEventListener("keydown", (event) => {
    const by = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
    if (!by) return;
    event.preventDefault();
    x = Math.min(layers.length - 1, Math.max(0, x + by[0]));
    y = Math.min(experts.length - 1, Math.max(0, y + by[1]));
    tell();
  });
}

function mean(routing, expert) {
  const values = Object.values(routing).map((weights) => weights[expert]).filter((value) => value !== undefined);
  return values.reduce((sum, value) => sum + value, 0) / Math.max(values.length, 1);
}

export function drawHeat(place, readout, found) {
  const rows = [["the question alone", found.routing], ...found.hits.filter((hit) => Object.keys(hit.routing ?? {}).length)
    .map((hit) => [`${hit.rank}. ${hit.title || hit.text.slice(0, 60)}`, hit.routing])];
  const all = rows.flatMap(([, routing]) => Object.values(routing));
  const experts = [...new Set(all.flatMap((weights) => Object.keys(weights)))];
  const farthest = Math.max(...all.flatMap((weights) => Object.values(weights).map((value) => Math.abs(value - evenShare(weights)))), 1e-6);
  place.replaceChildren(...rows.map(([label, routing], i) => strip(label, routing, experts, farthest, readout, i === 0)));
}
