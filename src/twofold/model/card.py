"""The model card: README.md of a saved folder, made from the model itself and from the facts of its training.

What is not among the facts is not said. The facts that are understood: name, license, language, base_model, datasets,
attribution (a list of sentences on data and licences), method, options, train (steps, batch, negatives, lr, seed, tokens,
seconds), scores, dev, environment, before (the facts of the model that this one grew from); the rest stays in facts.json.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from twofold.model import builtin
from twofold.model.unified import UnifiedModel

Facts = Mapping[str, Any]

USES = {
    "twofold": 'import twofold\n\nmodel = twofold.load("{path}")\nvectors = model.encode_documents(["a document", "another"])',
    "rank": 'best = model.rank("a query", ["a document", "another"])',
    "answer": 'spans = model.predict("answer", [("who built it?", "It was built by Ada.")])[0]  # best first',
    "retrieve": "import twofold\nfrom sentence_transformers import SentenceTransformer\n\n"
    'vectors = SentenceTransformer("{path}").encode_document(["a document"])',
    "rerank": "import twofold\nfrom sentence_transformers import CrossEncoder\n\n"
    'scores = CrossEncoder("{path}").predict([("a query", "a document")])  # raw',
}


def card(model: UnifiedModel, facts: Facts) -> str:
    """Markdown with the front matter that model hubs read."""
    name = str(facts.get("name") or "model")
    can = {"retrieve": "embeds texts for retrieval", "rerank": "scores pairs of query and document", "answer": "finds answers in passages"}
    jobs = " and ".join(can.get(task, f"does {task}") for task in model.tasks)
    what = f"One transformer that {jobs}, made with Twofold."
    parts = [front_matter(model, facts), f"# {name}", what, "## Use", usage(model, name), "## The model", table(contents(model))]
    return "\n\n".join(parts + told(facts)) + "\n"


def system_card(members: list[str], facts: Facts) -> str:
    """Markdown for a folder of two models, whose own cards are in their folders."""
    name = str(facts.get("name") or "system")
    what = f"Two models made with Twofold, in {' and '.join(f'`{member}/`' for member in members)}."
    use = f'```python\nimport twofold\n\nsystem = twofold.load_system("{name}")\n```'
    return "\n\n".join([f"# {name}", what, "## Use", use, *told(facts)]) + "\n"


def told(facts: Facts) -> list[str]:
    """The sections on training, environment and scores, as far as there are facts."""
    parts = []
    before = training(facts.get("before") or {})
    for title, rows in (("Training", training(facts)), ("Training before that", before), ("Environment", environment(facts))):
        if rows:
            parts += [f"## {title}", table(rows)]
    if facts.get("attribution"):
        parts += ["## Data", "\n".join(f"- {line}" for line in facts["attribution"])]
    for title, key in (("Scores", "scores"), ("Scores on the dev set", "dev")):
        if facts.get(key):
            parts += [f"## {title}", scores(facts[key])]
    return parts


def front_matter(model: UnifiedModel, facts: Facts) -> str:
    """YAML between two lines of dashes; every value is JSON, which YAML reads."""
    tags = ["twofold", *(["sentence-similarity", "feature-extraction"] if "retrieve" in model.tasks else [])]
    tags += [*(["reranking"] if "rerank" in model.tasks else []), *(["lora"] if model.spec.plan.experts else [])]
    base = facts.get("base_model") or (model.spec.backbone if is_hub_id(model.spec.backbone) else None)
    known = {
        "library_name": "sentence-transformers",
        "pipeline_tag": "sentence-similarity" if "retrieve" in model.tasks else "text-ranking",
        "tags": tags,
        "license": facts.get("license"),
        "language": facts.get("language"),
        "base_model": base,
        "datasets": [name for name in facts.get("datasets") or () if is_hub_id(str(name))],
    }
    return "\n".join(["---", *(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in known.items() if value), "---"])


def is_hub_id(name: str) -> bool:
    """Whether a name has the form `owner/name`."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", name) is not None


def usage(model: UnifiedModel, name: str) -> str:
    """Code for every library that opens the folder."""
    both = "retrieve" in model.tasks and "rerank" in model.tasks
    own = [USES["twofold"], *([USES["rank"]] if both else []), *([USES["answer"]] if "answer" in model.tasks else [])]
    blocks = ["\n".join(own)] if "retrieve" in model.tasks else []
    blocks += [USES[task] for task in ("retrieve", "rerank") if task in model.tasks]
    if name == builtin.NAME:  # other libraries take a folder and not our name for it
        blocks = [block.replace('er("{path}")', 'er(str(twofold.locate("{path}")))') for block in blocks]
    return "\n\n".join(f"```python\n{block.replace('{path}', name)}\n```" for block in blocks)


def contents(model: UnifiedModel) -> dict[str, Any]:
    """What the folder holds."""
    plan, tokens = model.spec.plan, model.tokens
    sizes = {group: sum(parameter.numel() for _, parameter in members) for group, members in model.groups().items()}
    rows: dict[str, Any] = {"backbone": model.spec.backbone, "tasks": ", ".join(model.tasks)}
    if plan.experts:
        rows["experts"] = ", ".join(f"{expert.name} (rank {expert.rank})" for expert in plan.experts)
        rows["router"] = f"{plan.router}, one decision per {plan.scope}"
    rows |= {"pooling": model.backbone.pooling, "dimensions": model.width}
    rows["tokens at most"] = f"{tokens.max_length} of a text, {tokens.pair_length} of a pair ({tokens.query_length} of its query)"
    rows |= {f"prompt: {name.replace('_', ' ')}": f"`{prompt}`" for name, prompt in tokens.prompts.items()}
    rows |= {f"parameters: {group}": f"{size:,}" for group, size in sizes.items() if size}
    if "rerank" in model.tasks:
        rows["share of the pair score in a pipeline"] = f"{model.rerank_weight:.3g}"
    return rows


def training(facts: Facts) -> dict[str, Any]:
    """What is known of the training."""
    train = facts.get("train") or {}
    rows = {key: facts.get(key) for key in ("method", "options", "hardware")}
    rows["datasets"] = train.get("datasets") or facts.get("datasets")
    rows |= {key: train.get(key) for key in ("steps", "batch", "negatives", "lr", "seed", "tokens", "seconds")}
    rows |= {key: facts.get(key) for key in ("steps", "seed", "seeds") if facts.get(key) is not None}
    return {key: value for key, value in rows.items() if value not in (None, {}, [], "")}


def environment(facts: Facts) -> dict[str, Any]:
    """Hardware, versions, commit and date."""
    found = facts.get("environment") or {}
    rows = {key: found.get(key) for key in ("date", "commit", "python", "platform", "threads", "accelerators")}
    rows["processor"] = (found.get("cpu") or {}).get("model")
    rows["versions"] = found.get("versions") or facts.get("versions")
    return {key: value for key, value in rows.items() if value not in (None, {}, [], "")}


def scores(found: Mapping[str, Any]) -> str:
    """A table of rows → measures → values, or of measures → values."""
    rows = found if all(isinstance(value, Mapping) for value in found.values()) else {"": found}
    measures = list(dict.fromkeys(measure for values in rows.values() for measure in values))
    lines = [["", *measures], ["---"] * (len(measures) + 1)]
    lines += [[name, *(plain(values[measure]) if measure in values else "" for measure in measures)] for name, values in rows.items()]
    return "\n".join(f"| {' | '.join(escaped(cell) for cell in line)} |" for line in lines)


def table(rows: Mapping[str, Any]) -> str:
    """Two columns."""
    return "\n".join(["| | |", "|---|---|", *(f"| {escaped(key)} | {escaped(plain(value))} |" for key, value in rows.items())])


def plain(value: Any) -> str:
    """A value as a person writes it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain(each)}" for key, each in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(plain(each) for each in value)
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) and abs(value) > 9999 else str(value)


def escaped(text: str) -> str:
    """Safe inside a table's cell."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
