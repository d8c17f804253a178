// The API's description as a page: what FastAPI's own page shows, without asking a foreign server for its code.

const make = (tag, text = "", name = "") => Object.assign(document.createElement(tag), { textContent: text, className: name });

function resolve(api, schema) {
  if (!schema) return {};
  if (schema.$ref) return resolve(api, schema.$ref.split("/").slice(1).reduce((found, part) => found[part], api));
  return schema;
}

function kind(api, schema) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  const several = schema.anyOf || schema.oneOf;
  if (several) return [...new Set(several.map((each) => kind(api, each)))].join(" or ");
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" or ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.type === "array") return `list of ${schema.items ? kind(api, schema.items) : "anything"}`;
  return schema.type || "anything";
}

function limits(schema) {
  const known = { minimum: "from", maximum: "to", minLength: "characters from", maxLength: "characters to", minItems: "items from", maxItems: "items to" };
  return Object.entries(known).filter(([key]) => schema[key]).map(([key, word]) => `${word} ${schema[key].toLocaleString("en")}`).join(", ");
}

function table(api, given, heading) {
  const place = make("div"), schema = resolve(api, given);
  place.append(make("h3", heading));
  if (!schema.properties) { place.append(make("p", kind(api, given), "quiet")); return place; }
  const rows = make("table");
  for (const [name, own] of Object.entries(schema.properties)) {
    const row = make("tr"), cell = make("td");
    cell.append(make("code", name));
    const needed = (schema.required || []).includes(name) ? "needed" : own.default !== undefined ? `else ${JSON.stringify(own.default)}` : "";
    row.append(cell, make("td", kind(api, own)), make("td", [needed, limits(own)].filter(Boolean).join("; "), "quiet"), make("td", own.description || ""));
    rows.append(row);
  }
  place.append(rows);
  return place;
}

function operation(api, path, verb, own) {
  const place = make("details"), head = make("summary");
  head.append(make("span", verb.toUpperCase(), "verb"), make("code", path), make("span", (own.description || own.summary || "").split("\n")[0], "quiet"));
  place.append(head);
  const asked = own.requestBody?.content["application/json"]?.schema;
  if (asked) place.append(table(api, asked, "Body"));
  const [given] = Object.values(own.responses["200"]?.content || {});
  if (given?.schema) {
    const forms = resolve(api, given.schema).anyOf || [given.schema];
    forms.forEach((form) => place.append(table(api, form.items || form, form.items ? "Answer, a list of" : "Answer")));
  }
  return place;
}

const key = sessionStorage.getItem("key");
const answer = await fetch("/openapi.json", { headers: key ? { Authorization: `Bearer ${key}` } : {} });
const api = await answer.json();
if (answer.ok) {
  document.getElementById("summary").textContent = api.info.summary;
  const all = Object.entries(api.paths).flatMap(([path, verbs]) => Object.entries(verbs).map(([verb, own]) => operation(api, path, verb, own)));
  document.getElementById("operations").replaceChildren(...all);
} else {
  document.getElementById("summary").textContent = api.error.message;
}
