// Two lists of passages, before and after reranking, and the lines that show where each one went.

const make = (tag, name, text) => {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text !== undefined) element.textContent = text;
  return element;
};

// Text with some of its characters marked: nodes, never markup.
export function markText(text, places) {
  const nodes = [];
  let done = 0;
  for (const [start, end] of [...places].sort((a, b) => a[0] - b[0])) {
    if (start < done || end <= start) continue;
    nodes.push(slice(text, done, start), make("mark", "", slice(text, start, end)));
    done = end;
  }
  nodes.push(slice(text, done));
  return nodes;
}

// The server counts characters, JavaScript counts halves of them.
function slice(text, start, end) {
  return /[\ud800-\udbff]/.test(text) ? [...text].slice(start, end).join("") : text.slice(start, end);
}

function movement(hit) {
  const by = hit.first_rank - hit.rank;
  const name = by > 0 ? "up" : by < 0 ? "down" : "same";
  const sign = by > 0 ? `▲ ${by}` : by < 0 ? `▼ ${-by}` : "=";
  const badge = make("span", `move ${name}`, sign);
  badge.setAttribute("aria-label", by ? `${Math.abs(by)} places ${by > 0 ? "up" : "down"}, from ${hit.first_rank}` : "the same place");
  return badge;
}

function card(hit, rank, marks, plain) {
  const element = make("li", "hit");
  element.tabIndex = 0;
  element.dataset.id = hit.id;
  const text = make("p", "text"), foot = make("div", "foot");
  text.append(...markText(hit.text, marks));
  element.append(make("span", "rank", String(rank)), make("span", "title", hit.title || (plain ? "" : hit.document || "")));
  if (plain) {
    if (hit.dense_rank) foot.append(make("span", "", `vectors ${hit.dense_rank}`));
    if (hit.lexical_rank) foot.append(make("span", "", `words ${hit.lexical_rank}`));
  } else {
    const meter = make("span", "meter"), fill = make("i");
    fill.style.width = `${Math.round(100 * Math.min(1, Math.max(0, hit.score)))}%`;
    meter.append(fill);
    foot.append(meter, make("span", "", hit.score.toFixed(3)));
    if (hit.rerank_score !== undefined && hit.rerank_score !== null) foot.append(make("span", "", `pair ${hit.rerank_score.toFixed(2)}`));
    if (hit.source) foot.append(make("span", "source", hit.source));
    element.append(movement(hit));
  }
  element.append(text, foot);
  const toggle = () => { if (!String(getSelection())) { element.classList.toggle("open"); drawMoves(); } };
  element.addEventListener("click", toggle);
  element.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); toggle(); } });
  for (const [kind, on] of [["mouseenter", true], ["focus", true], ["mouseleave", false], ["blur", false]]) {
    element.addEventListener(kind, () => light(hit.id, on));
  }
  return element;
}

function light(id, on) {
  for (const each of document.querySelectorAll("#results .hit, #moves path")) each.classList.toggle("on", on && each.dataset.id === id);
  document.getElementById("moves").classList.toggle("some", on);
}

export function drawLists(first, hits, found, cited) {
  const kept = new Set(found.hits.map((hit) => hit.id));
  first.replaceChildren(...found.first.map((hit) => {
    const element = card(hit, hit.first_rank, [], true);
    element.classList.toggle("gone", !kept.has(hit.id));
    return element;
  }));
  hits.replaceChildren(...found.hits.map((hit) => {
    const marks = cited.filter((one) => one.id === hit.id).map((one) => [one.start, one.end]);
    const element = card(hit, hit.rank, marks, false);
    element.classList.toggle("open", marks.length > 0);
    return element;
  }));
}

// A line from every card to its twin; a dotted one to or from below for what has none.
export function drawMoves() {
  const svg = document.getElementById("moves"), box = svg.getBoundingClientRect();
  if (!box.width) return;
  const middle = (element) => { const own = element.getBoundingClientRect(); return own.top + Math.min(own.height / 2, 30) - box.top; };
  const lefts = new Map([...document.querySelectorAll("#first .hit")].map((each) => [each.dataset.id, each]));
  const rights = new Map([...document.querySelectorAll("#hits .hit")].map((each) => [each.dataset.id, each]));
  const floor = (cards) => Math.max(...[...cards.values()].map((each) => each.getBoundingClientRect().bottom - box.top), 0) + 14;
  const paths = [];
  for (const id of new Set([...lefts.keys(), ...rights.keys()])) {
    const left = lefts.get(id), right = rights.get(id);
    const a = left ? middle(left) : floor(lefts), b = right ? middle(right) : floor(rights);
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("d", `M 4 ${a} C ${box.width * 0.5} ${a}, ${box.width * 0.5} ${b}, ${box.width - 4} ${b}`);
    path.dataset.id = id;
    const badge = right?.querySelector(".move");
    path.classList.add(badge ? badge.classList[1] : "down");
    if (!left || !right) path.classList.add("far");
    paths.push(path);
  }
  svg.replaceChildren(...paths);
}
