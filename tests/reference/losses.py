"""The losses as the papers write them: one query, one pair, one number at a time, in plain Python floats."""

from __future__ import annotations

import math
from collections.abc import Sequence

Vector = Sequence[float]


def dot(a: Vector, b: Vector) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def max_sim(query: Sequence[Vector], document: Sequence[Vector], weights: Sequence[float] | None = None) -> float:
    """Mean over the query's tokens, by weight, of the largest cosine with any token of the document; 0 where one has no tokens."""
    if not query or not document:
        return 0.0
    best = [max(dot(q, d) / math.sqrt(dot(q, q) * dot(d, d)) for d in document) for q in query]
    weights = [1.0] * len(query) if weights is None else weights
    return dot(best, weights) / math.fsum(weights)


def info_nce(
    queries: Sequence[Vector],
    documents: Sequence[Vector],
    positives: Sequence[int],
    temperature: float,
    margin: float | None,
    relevant: Sequence[Sequence[bool]] | None = None,
    query_negatives: bool = False,
    document_negatives: bool = False,
) -> list[float]:
    """Equation 1 of arXiv 2506.05176: −log of the positive's share of Z, in which likely false negatives do not count."""
    losses = []
    for i, query in enumerate(queries):
        positive = documents[positives[i]]
        own = dot(query, positive)
        known = [bool(relevant and relevant[i][j]) for j in range(len(documents))]

        def counts(similarity: float, own: float = own) -> bool:
            return margin is None or similarity <= own + margin

        total = math.exp(own / temperature)
        for j, document in enumerate(documents):
            if j == positives[i] or known[j]:
                continue
            if counts(similarity := dot(query, document)):
                total += math.exp(similarity / temperature)
            if document_negatives and counts(similarity := dot(positive, document)):
                total += math.exp(similarity / temperature)
        for k, other in enumerate(queries):
            if query_negatives and k != i and not known[positives[k]] and counts(dot(query, other)):
                total += math.exp(dot(query, other) / temperature)
        losses.append(-math.log(math.exp(own / temperature) / total))
    return losses


def softmax(values: Sequence[float]) -> list[float]:
    top = max(values)
    weights = [math.exp(value - top) for value in values]
    return [weight / math.fsum(weights) for weight in weights]


def listwise_softmax(scores: Sequence[float], grades: Sequence[float]) -> float:
    total = math.fsum(max(grade, 0) for grade in grades)
    return -math.fsum(max(grade, 0) / total * math.log(share) for grade, share in zip(grades, softmax(scores), strict=True))


def ranknet(scores: Sequence[float], grades: Sequence[float]) -> float:
    terms = [math.log1p(math.exp(scores[j] - scores[i])) for i in range(len(scores)) for j in range(len(scores)) if grades[i] > grades[j]]
    return math.fsum(terms) / len(terms) if terms else 0.0


def pointwise_bce(scores: Sequence[float], grades: Sequence[float]) -> float:
    top = max(1.0, *grades)
    terms = []
    for score, grade in zip(scores, grades, strict=True):
        target, probability = max(grade, 0) / top, 1 / (1 + math.exp(-score))
        terms.append(-target * math.log(probability) - (1 - target) * math.log(1 - probability))
    return math.fsum(terms) / len(terms)


def margin_mse(scores: Sequence[float], teacher: Sequence[float]) -> float:
    terms = [((scores[0] - scores[j]) - (teacher[0] - teacher[j])) ** 2 for j in range(1, len(scores))]
    return math.fsum(terms) / len(terms)


def listwise_kl(scores: Sequence[float], teacher: Sequence[float], temperature: float = 1.0) -> float:
    target = softmax([value / temperature for value in teacher])
    return math.fsum(t * (math.log(t) - math.log(s)) for t, s in zip(target, softmax(scores), strict=True))
