"""What can be said of a text or a pair without a model: the properties that linear probes look for.

Words are runs of two or more letters and digits without case; terms are words that are no stop words of bm25s.

- length: tokens of the input as the model reads it
- idf: mean IDF of a text's terms; of a pair, the share of the query's IDF mass that its document has, too
- overlap: share of the query's different terms that are in the document
- entities: a proxy of named entities, not a tagger: words per word of the text that begin with a capital letter without beginning a
  sentence, or that hold two capitals, or a letter and a digit (NASA, COVID19, p53)
- question: what the query asks by its first question word: what, who, when, where, why, how, which; statement where it has none
- relevance: whether the document is judged relevant to the query

IDF is ln(1 + (N − n + ½) / (n + ½)) for n of the corpus's N documents (at most the first 10,000), BM25's.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

from bm25s.stopwords import STOPWORDS_EN

from twofold.probes._material import Sample
from twofold.records import Document

MOST_DOCUMENTS = 10_000
STOP = frozenset(STOPWORDS_EN)
QUESTIONS = ("what", "who", "when", "where", "why", "how", "which")
STATEMENT = "statement"
Values = Sequence[float] | Sequence[str]


def words(text: str) -> list[str]:
    """Its words, in order."""
    return re.findall(r"[^\W_]{2,}", text.casefold())


def terms(text: str) -> list[str]:
    """Its words that are no stop words."""
    return [word for word in words(text) if word not in STOP]


def document_frequency(documents: Iterable[Document]) -> tuple[Mapping[str, int], int]:
    """Term → how many documents it is in, of how many."""
    counts: Counter[str] = Counter()
    total = 0
    for document in islice(documents, MOST_DOCUMENTS):
        counts.update(set(terms(document.body)))
        total += 1
    return counts, total


def idf(term: str, frequency: Mapping[str, int], total: int) -> float:
    """The term's weight; that of a term which no document has is the largest."""
    n = frequency.get(term, 0)
    return math.log(1 + (total - n + 0.5) / (n + 0.5))


def overlap(query: str, document: str) -> float:
    """0 to 1; 0 where the query has no terms."""
    asked = set(terms(query))
    return len(asked & set(terms(document))) / len(asked) if asked else 0.0


def entities(text: str) -> float:
    """Words that look like names, per word."""
    found = total = 0
    begins = True
    for token in text.split():
        bare = token.strip("\"'()[]{}<>,;:.!?")
        if bare:
            total += 1
            inside = any(c.isalpha() for c in bare) and any(c.isdigit() for c in bare)
            capitals = sum(c.isupper() for c in bare)
            found += inside or capitals > 1 or (bare[0].isupper() and not begins)
        begins = token.endswith((".", "!", "?"))
    return found / total if total else 0.0


def question(text: str) -> str:
    """The first question word among the text's words, or "statement"."""
    return next((word for word in words(text) if word in QUESTIONS), STATEMENT)


def properties_of_texts(texts: Sequence[str], lengths: Sequence[int], frequency: Mapping[str, int], total: int) -> dict[str, Values]:
    """Property → its value for each text."""
    weights = [[idf(term, frequency, total) for term in terms(text)] for text in texts]
    return {
        "length": [float(length) for length in lengths],
        "idf": [sum(own) / len(own) if own else 0.0 for own in weights],
        "entities": [entities(text) for text in texts],
        "question": [question(text) for text in texts],
    }


def properties_of_pairs(one: Sample, lengths: Sequence[int], frequency: Mapping[str, int], total: int) -> dict[str, Values]:
    """Property → its value for each pair."""
    shares = []
    for query, document in one.pair_texts:
        asked, there = set(terms(query)), set(terms(document))  # sets have no order that lasts, and fsum needs none
        mass = {term: idf(term, frequency, total) for term in asked}
        shares.append(math.fsum(mass[term] for term in asked & there) / math.fsum(mass.values()) if mass else 0.0)
    return {
        "length": [float(length) for length in lengths],
        "idf": shares,
        "overlap": [overlap(query, document) for query, document in one.pair_texts],
        "entities": [entities(document) for _, document in one.pair_texts],
        "question": [question(query) for query, _ in one.pair_texts],
        "relevance": ["relevant" if grade > 0 else "other" for _, _, grade in one.pairs],
    }


def classes(values: Values) -> list[str]:
    """Numbers as low or high: above their median; names as they are."""
    numbers = [float(value) for value in values if not isinstance(value, str)]
    if not numbers:
        return [str(value) for value in values]
    middle = sorted(numbers)[len(numbers) // 2]
    above = [value > middle for value in numbers]
    if not any(above):  # half of them share the largest value
        above = [value >= middle for value in numbers]
    return ["high" if each else "low" for each in above]


def keys(texts: Sequence[str], fewest: int = 3) -> list[str]:
    """Each text's word type for a control task: the rarest of its terms that at least so many of the texts have, else its rarest."""
    own = [sorted(set(terms(text))) or [""] for text in texts]
    counts = Counter(term for each in own for term in each)

    def rarest(each: Sequence[str]) -> str:
        return min(each, key=lambda term: (counts[term], term))

    recurring = [[term for term in each if counts[term] >= fewest] for each in own]
    return [rarest(often or each) for often, each in zip(recurring, own, strict=True)]
