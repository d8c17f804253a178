// The page: asks the server, and hands what comes back to the drawing of lists and of the heat map.
import { drawLists, drawMoves, markText } from "/lists.js";
import { drawHeat } from "/heat.js";

const at = (id) => document.getElementById(id);
const STEPS = { encode: "question read", retrieve: "first stage", rerank: "reranked", answer: "answer", explain: "experts" };
const server = { answers: false, index: false, key: sessionStorage.getItem("key") || "" };
let asked = 0;

async function call(path, body) {
  const headers = { "Content-Type": "application/json" };
  if (server.key) headers.Authorization = `Bearer ${server.key}`;
  const answer = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body) });
  const found = await answer.json().catch(() => ({}));
  if (answer.ok) return found;
  const error = new Error(found.error?.message || `the server said ${answer.status}`);
  error.status = answer.status;
  error.after = answer.headers.get("Retry-After");
  throw error;
}

function say(text, bad = false) {
  at("status").textContent = text;
  at("status").classList.toggle("bad", bad);
}

function sayError(error) {
  at("locked").hidden = error.status !== 401;
  if (error.status === 401) at("key").focus();
  const later = error.after ? ` Try again in ${error.after} s.` : "";
  say(error.status ? `${error.message}.${later}` : "The server cannot be reached.", true);
}

async function meet() {
  try {
    const [model] = (await call("/v1/models")).data;
    server.index = model.passages !== null;
    server.answers = server.index && model.tasks.includes("answer");
    const size = server.index ? `, ${model.passages.toLocaleString("en")} passages` : "";
    at("about").textContent = `${model.id}${size}`;
    at("locked").hidden = true;
    at("options").hidden = !server.index;
    at("own").hidden = server.index;
    at("query").placeholder = server.index ? "Ask the documents" : "A question to rank passages by";
    return true;
  } catch (error) {
    sayError(error);
    return false;
  }
}

function request() {
  const query = at("query").value.trim();
  const explain = at("explain").checked;
  if (!server.index) return null;
  const common = { mode: at("mode").value, depth: Number(at("depth").value), top_k: 10, explain };
  return server.answers ? ["/v1/answer", { question: query, ...common }] : ["/v1/search", { query, ...common }];
}

// Passages of one's own have no first stage: their first order is the given one.
async function rankOwn(query) {
  const texts = at("passages").value.split("\n").map((line) => line.trim()).filter(Boolean);
  if (!texts.length) throw Object.assign(new Error("give at least one passage"), { status: 422 });
  const begun = performance.now();
  const ranking = await call("/rerank", { query, documents: texts });
  const hits = ranking.results.map((row, i) => ({
    id: String(row.index), rank: i + 1, first_rank: row.index + 1, title: "", text: texts[row.index], source: "", score: row.relevance_score,
  }));
  const first = [...hits].sort((a, b) => a.first_rank - b.first_rank);
  return { hits, first, candidates: texts.length, seconds: { rerank: (performance.now() - begun) / 1000 } };
}

async function ask(event) {
  event?.preventDefault();
  const query = at("query").value.trim();
  if (!query) return;
  const mine = ++asked;
  const button = document.querySelector("button[type=submit]");
  button.disabled = true;
  say("Searching…");
  try {
    if (at("key").value) { server.key = at("key").value; sessionStorage.setItem("key", server.key); }
    if (!at("about").textContent && !(await meet())) return;
    const begun = performance.now();
    const [path, body] = request() ?? [];
    const found = path ? await call(path, body) : await rankOwn(query);
    if (mine !== asked) return;
    at("locked").hidden = true;
    remember(query);
    show(found, performance.now() - begun);
  } catch (error) {
    if (mine === asked) sayError(error);
  } finally {
    if (mine === asked) button.disabled = false;
  }
}

function show(found, elapsed) {
  const cited = found.text === undefined ? [] : found.citations;
  showAnswer(found);
  showTimes(found, elapsed);
  at("results").hidden = !found.hits.length;
  drawLists(at("first"), at("hits"), found, cited);
  drawMoves();
  at("experts").hidden = !found.routing;
  if (found.routing) drawHeat(at("heat"), at("readout"), found);
  say(found.hits.length ? `${found.hits.length} of ${found.candidates} passages` : "Nothing was found.");
}

function showAnswer(found) {
  const known = found.text !== undefined;
  at("answer").hidden = !known || !found.hits.length;
  if (!known) return;
  at("answer").classList.toggle("none", !found.supported);
  at("answer-text").textContent = found.supported ? found.text : "Nothing that was found answers this.";
  at("citations").replaceChildren(...found.citations.map((one) => {
    const row = document.createElement("li"), text = document.createElement("p"), source = document.createElement("button");
    const shift = one.sentence[0];
    text.append(...markText(one.context, [[one.start - shift, one.end - shift]]), " ");
    source.type = "button";
    source.className = "link source";
    source.textContent = one.source || one.document;
    source.addEventListener("click", () => document.querySelector(`#hits [data-id="${CSS.escape(one.id)}"]`)?.focus());
    text.append(source);
    row.append(text);
    return row;
  }));
}

function showTimes(found, elapsed) {
  const steps = Object.entries(found.seconds);
  const line = (name, text) => Object.assign(document.createElement("span"), { className: name, textContent: text });
  at("timings").hidden = !steps.length;
  at("bar").replaceChildren(...steps.map(([step, seconds]) => {
    const part = line(`t-${step}`, "");
    part.style.flexGrow = String(Math.max(seconds, 1e-4));
    return part;
  }));
  const named = steps.map(([step, seconds]) => line(`key t-${step}`, `${STEPS[step] ?? step} ${(1000 * seconds).toFixed(0)} ms`));
  at("legend").replaceChildren(...named, line("", `in all ${elapsed.toFixed(0)} ms`));
}

function remember(query) {
  const place = new URLSearchParams({ q: query });
  if (server.index) place.set("mode", at("mode").value);
  if (at("explain").checked) place.set("explain", "1");
  history.replaceState(null, "", `?${place}`);
  document.title = `${query} · Twofold`;
}

function step(by) {
  const cards = [...document.querySelectorAll("#hits .hit")];
  const next = cards[Math.min(cards.length - 1, Math.max(0, cards.indexOf(document.activeElement) + by))];
  next?.focus();
}

function keys(event) {
  const typing = event.target.matches("input, textarea, select, svg");
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/" && !typing) { event.preventDefault(); at("query").select(); }
  else if (event.key === "Escape") at("query").focus();
  else if (event.key === "ArrowDown" && (!typing || event.target.id === "query")) { event.preventDefault(); step(1); }
  else if (event.key === "ArrowUp" && !typing) { event.preventDefault(); step(-1); }
}

function theme() {
  const dark = document.documentElement.dataset.theme
    ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("theme", document.documentElement.dataset.theme);
}

const kept = localStorage.getItem("theme");
if (kept) document.documentElement.dataset.theme = kept;
at("theme").addEventListener("click", theme);
at("ask").addEventListener("submit", ask);
at("explain").addEventListener("change", () => { if (!at("results").hidden) ask(); });
at("mode").addEventListener("change", () => { if (!at("results").hidden) ask(); });
document.addEventListener("keydown", keys);
new ResizeObserver(drawMoves).observe(at("results"));

const place = new URLSearchParams(location.search);
at("query").value = place.get("q") ?? "";
if (["hybrid", "dense", "lexical"].includes(place.get("mode"))) at("mode").value = place.get("mode");
at("explain").checked = place.get("explain") === "1";
if (matchMedia("(min-width: 861px)").matches) at("query").focus();
if (await meet()) { if (at("query").value) ask(); }
