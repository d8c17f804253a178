"""The card says what is known, and nothing else."""

from __future__ import annotations

import json

from tests.model.conftest import MakeModel
from twofold.model.card import card, is_hub_id, scores

FACTS = {
    "name": "fox",
    "license": "apache-2.0",
    "base_model": "owner/base",
    "method": "moe_lora",
    "options": {"rank": 8},
    "train": {"steps": {"retrieve": 60, "rerank": 60}, "seed": 3, "lr": {"experts": 5e-4}, "datasets": ["scifact"], "tokens": 1234567},
    "dev": {"nDCG@10": 0.7123456},
    "environment": {"cpu": {"model": "A | B"}, "versions": {"torch": "2.13"}, "commit": None},
}


def test_the_front_matter_is_what_hubs_read(make_model: MakeModel) -> None:
    lines = card(make_model(), FACTS).split("---\n")[1].splitlines()
    found = {key: json.loads(value) for key, _, value in (line.partition(": ") for line in lines)}
    assert found["library_name"] == "sentence-transformers" and found["pipeline_tag"] == "sentence-similarity"
    assert found["license"] == "apache-2.0" and found["base_model"] == "owner/base" and "reranking" in found["tags"]


def test_facts_are_told(make_model: MakeModel) -> None:
    text = card(make_model(prompts={"query": "query : "}), FACTS)
    for told in (
        "# fox",
        "moe_lora",
        "rank 8",
        "retrieve 60, rerank 60",
        "experts 0.0005",
        "1,234,567",
        "| 0.7123 |",
        "A \\| B",
        "torch 2.13",
        "`query : `",
    ):
        assert told in text, told
    assert "commit" not in text


def test_what_is_not_known_is_not_told(make_model: MakeModel) -> None:
    text = card(make_model("none"), {})
    assert "license" not in text and "Training" not in text and "Scores" not in text and "None" not in text and "experts" not in text
    assert "base_model" not in text  # a folder of this machine is nobody's base model


def test_a_model_of_one_task_says_what_it_does(make_model: MakeModel) -> None:
    text = card(make_model("none", tasks={"rerank": {}}), {})
    assert "text-ranking" in text and "CrossEncoder" in text and "encode_documents" not in text and "SentenceTransformer(" not in text
    assert "CrossEncoder" not in card(make_model("none", tasks={"retrieve": {}}), {})


def test_scores_are_a_table() -> None:
    table = scores({"dense": {"nDCG@10": 0.71234, "R@100": 0.9}, "reranked": {"nDCG@10": 0.75}}).splitlines()
    assert table == ["|  | nDCG@10 | R@100 |", "| --- | --- | --- |", "| dense | 0.7123 | 0.9 |", "| reranked | 0.75 |  |"]


def test_names_of_the_hub() -> None:
    assert is_hub_id("owner/name-1.2") and not any(is_hub_id(name) for name in ("name", "/a/b", "package:name", "./a/b", "../a"))
