"""Runs as ranked lists: cutting, the query's own id, a fingerprint, and TREC run files."""

from __future__ import annotations

import hashlib
from pathlib import Path

from twofold.ranking import ranked
from twofold.records import Qrels, Run


def top(run: Run, depth: int) -> Run:
    """The best `depth` documents of every query, with their scores."""
    return {query: {document: scores[document] for document in ranked(scores)[:depth]} for query, scores in run.items()}


def drop_own_id(run: Run, qrels: Qrels) -> tuple[Run, int]:
    """Take out candidates whose id is the query's own, and say for how many queries that happened.

    In ArguAna the query is itself a document of the corpus and would be its own best answer, so BEIR ignores identical
    ids; published figures differ widely with this choice. A document that is *judged relevant* to the query of the
    same id stays: in data made from pairs, query and document may share the pair's id.
    """
    own = {query for query, scores in run.items() if query in scores and qrels.get(query, {}).get(query, 0) <= 0}
    kept = {query: {d: s for d, s in scores.items() if d != query or query not in own} for query, scores in run.items()}
    return kept, len(own)


def sha256(run: Run) -> str:
    """A fingerprint of the candidates: of every query's document ids in their order, not of the scores' last digits."""
    digest = hashlib.sha256()
    for query in sorted(run):
        digest.update("\0".join((query, *ranked(run[query]))).encode() + b"\n")
    return digest.hexdigest()


def write_trec(run: Run, path: Path, tag: str) -> None:
    """Write a TREC run file: `query Q0 document rank score tag`, ranks from 1, folders made as needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for query in sorted(run):
            for rank, document in enumerate(ranked(run[query]), start=1):
                file.write(f"{query} Q0 {document} {rank} {run[query][document]:.9g} {tag}\n")
