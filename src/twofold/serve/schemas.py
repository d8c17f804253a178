"""What goes in and comes out of every route: the shapes of OpenAI, Cohere, Jina, vLLM and TEI, and our own for search.

Options that a client of another server sends and that mean nothing here are passed over; what it asks for and cannot have is refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

TEXT_CHARACTERS = 200_000
"""Of one text. More than any model reads, and cut long before it is tokenised."""
MOST_TEXTS, MOST_DOCUMENTS, MOST_IDS = 2048, 1000, 8192
QUERY_CHARACTERS = 8192


def _clean(text: str) -> str:
    """Refuses what is no text but breaks things behind the model: databases, C strings, logs."""
    if "\0" in text:
        raise PydanticCustomError("nul_character", "a text holds a NUL character")
    return text


def _asked(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("empty", "the text is empty")
    return text


def _schema(most: int, pattern: str, least: int = 0) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "minLength": least, "maxLength": most, "pattern": pattern})


NO_NUL, NOT_EMPTY = r"^[^\x00]*$", r"^[^\x00]*[^\x00\s][^\x00]*$"
Text: TypeAlias = Annotated[str, StringConstraints(max_length=TEXT_CHARACTERS), AfterValidator(_clean), _schema(TEXT_CHARACTERS, NO_NUL)]
Filled: TypeAlias = Annotated[Text, AfterValidator(_asked), _schema(TEXT_CHARACTERS, NOT_EMPTY, 1)]
Question: TypeAlias = Annotated[
    str,
    StringConstraints(max_length=QUERY_CHARACTERS),
    AfterValidator(_clean),
    AfterValidator(_asked),
    _schema(QUERY_CHARACTERS, NOT_EMPTY, 1),
]
TokenIds: TypeAlias = Annotated[list[Annotated[StrictInt, Field(ge=0, lt=1 << 31)]], Field(min_length=1, max_length=MOST_IDS)]
Input: TypeAlias = (
    Filled
    | Annotated[list[Filled], Field(min_length=1, max_length=MOST_TEXTS)]
    | TokenIds
    | Annotated[list[TokenIds], Field(min_length=1, max_length=MOST_TEXTS)]
)
ModelName: TypeAlias = Annotated[str, StringConstraints(max_length=200)] | None


class Shape(BaseModel):
    """A request. Types are not bent: `"5"` is no number, `1` is no truth."""

    model_config = ConfigDict(strict=True, extra="ignore", protected_namespaces=())


class Usage(BaseModel):
    """Tokens that the model read."""

    prompt_tokens: int
    total_tokens: int
    truncated: int = Field(0, description="How many texts or pairs were longer than the model reads, and were cut.")


class EmbeddingsRequest(Shape):
    """OpenAI's. Token ids are those of this model's own tokenizer, without special tokens."""

    input: Input
    model: ModelName = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1, le=1 << 20)] | None = None
    input_type: Literal["query", "document", "search_query", "search_document"] | None = Field(
        None, description="Which prompt, and which experts where the model tells queries from documents; none: a plain text."
    )

    @property
    def texts(self) -> list[str] | list[list[int]]:
        """The input as a list of texts or of token ids."""
        if isinstance(self.input, str):
            return [self.input]
        if isinstance(self.input[0], int):
            return [self.input]
        return self.input

    @property
    def prompt(self) -> str | None:
        """The model's own word for `input_type`."""
        return None if self.input_type is None else self.input_type.removeprefix("search_")


class Embedding(BaseModel):
    """One vector, as numbers or as base64 of little-endian float32."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingsResponse(BaseModel):
    """OpenAI's."""

    object: Literal["list"] = "list"
    model: str
    data: list[Embedding]
    usage: Usage


class TextDocument(Shape):
    """A document as an object."""

    text: Text


class RerankRequest(Shape):
    """Cohere's and Jina's with `documents`, TEI's with `texts`: the answer has the shape of whoever asks."""

    query: Question
    documents: Annotated[list[Text | TextDocument], Field(min_length=1, max_length=MOST_DOCUMENTS)] | None = None
    texts: Annotated[list[Text], Field(min_length=1, max_length=MOST_DOCUMENTS)] | None = None
    model: ModelName = None
    top_n: Annotated[int, Field(ge=1, le=1 << 31)] | None = None
    return_documents: StrictBool | None = None
    return_text: StrictBool = False
    raw_scores: StrictBool = Field(False, description="The model's own scores instead of numbers between 0 and 1. Their order is the same.")
    truncate: StrictBool = Field(True, description="With `false`, a pair that is longer than the model reads is refused (TEI).")

    @model_validator(mode="after")
    def _one_of_both(self) -> RerankRequest:
        if (self.documents is None) == (self.texts is None):
            raise ValueError("give either documents or texts")
        return self

    @property
    def bodies(self) -> list[str]:
        """The documents' texts."""
        return [each if isinstance(each, str) else each.text for each in self.documents or self.texts or []]


class RerankedDocument(BaseModel):
    """A document that was asked back."""

    text: str


class Reranked(BaseModel):
    """One document of a ranking."""

    index: int
    relevance_score: float
    document: RerankedDocument | None = None


class RerankResponse(BaseModel):
    """Cohere's, Jina's and vLLM's, which agree."""

    id: str
    object: Literal["list"] = "list"
    model: str
    results: list[Reranked]
    usage: Usage
    meta: dict[str, Any] = Field(description="Cohere's: version and billed units.")


class TeiRank(BaseModel):
    """One text of a ranking, as TEI has it."""

    index: int
    score: float
    text: str | None = None


Side: TypeAlias = Text | Annotated[list[Text], Field(min_length=1, max_length=MOST_DOCUMENTS)]


class ScoreRequest(Shape):
    """vLLM's: two texts or lists under either pair of names; one text goes with each of many."""

    text_1: Side | None = None
    text_2: Side | None = None
    queries: Side | None = None
    documents: Side | None = None
    model: ModelName = None

    @model_validator(mode="after")
    def _two_sides(self) -> ScoreRequest:
        both = (self.text_1 is not None and self.text_2 is not None), (self.queries is not None and self.documents is not None)
        if sum(both) != 1:
            raise ValueError("give either text_1 and text_2, or queries and documents")
        left, right = self._sides
        if len(left) != len(right) and 1 not in (len(left), len(right)):
            raise ValueError(f"{len(left)} and {len(right)} texts: give as many of each, or one")
        return self

    @property
    def _sides(self) -> tuple[list[str], list[str]]:
        left, right = (self.text_1, self.text_2) if self.text_1 is not None else (self.queries, self.documents)
        return ([left] if isinstance(left, str) else left or []), ([right] if isinstance(right, str) else right or [])

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Query and document of each pair."""
        left, right = self._sides
        size = max(len(left), len(right))
        return list(zip(left * (size // len(left)), right * (size // len(right)), strict=True))


class Score(BaseModel):
    """One pair's raw score, as `UnifiedModel.score` gives it."""

    index: int
    object: Literal["score"] = "score"
    score: float


class ScoreResponse(BaseModel):
    """vLLM's."""

    id: str
    object: Literal["list"] = "list"
    model: str
    data: list[Score]
    usage: Usage


class ModelCard(BaseModel):
    """One way to use the loaded model: as it is, or by one of its variants."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "twofold"
    tasks: list[str]
    dimensions: int
    max_length: int
    pair_length: int
    fingerprint: str | None = None
    passages: int | None = Field(None, description="Of the index that is served with it; none where there is no index.")


class ModelList(BaseModel):
    """OpenAI's."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


Value: TypeAlias = str | StrictInt | StrictFloat | StrictBool
Where: TypeAlias = Annotated[
    dict[Annotated[str, StringConstraints(min_length=1, max_length=200)], Value | Annotated[list[Value], Field(max_length=100)]],
    Field(max_length=20),
]


class Asked(Shape):
    """What a search and an answer have in common."""

    depth: Annotated[int, Field(ge=1, le=MOST_DOCUMENTS)] = Field(20, description="How many of the first stage's passages are reranked.")
    mode: Literal["hybrid", "dense", "lexical"] = "hybrid"
    where: Where | None = Field(None, description="Conditions on metadata: each key must have the value, or one of the values.")
    rerank: StrictBool = True
    explain: StrictBool = Field(False, description="Adds what the routers decide, layer by layer, for the query and each pair.")
    model: ModelName = None


class SearchRequest(Asked):
    """A question to the index."""

    query: Question
    top_k: Annotated[int, Field(ge=1, le=100)] = 10


class AnswerRequest(Asked):
    """A question to be answered from the index."""

    question: Question
    top_k: Annotated[int, Field(ge=1, le=100)] = 10
    read: Annotated[int, Field(ge=1, le=20)] = Field(5, description="How many of the best passages are read for the answer.")


Routing: TypeAlias = dict[str, dict[str, float]]


class SearchHit(BaseModel):
    """One passage. Ranks count from 1."""

    rank: int
    score: float
    id: str
    document: str
    title: str
    text: str
    source: str
    metadata: dict[str, Any]
    first_rank: int
    first_score: float
    dense_rank: int | None = None
    dense_score: float | None = None
    lexical_rank: int | None = None
    lexical_score: float | None = None
    rerank_score: float | None = None
    routing: Routing | None = None


class SearchResponse(BaseModel):
    """What was found, before and after reranking, and how long each step took."""

    object: Literal["search"] = "search"
    model: str
    query: str
    mode: str
    hits: list[SearchHit]
    first: list[SearchHit] = Field(description="The first stage's best, in its own order.")
    candidates: int
    seconds: dict[str, float]
    routing: Routing | None = None


class Citation(BaseModel):
    """Where an answer stands: characters `start` to `end` of a passage's text."""

    number: int
    id: str
    document: str
    title: str
    source: str
    start: int
    end: int
    quote: str
    sentence: tuple[int, int] = Field(description="The sentence around it.")
    context: str


class OtherAnswer(BaseModel):
    """One that had less support."""

    text: str
    score: float
    id: str


class AnswerResponse(BaseModel):
    """An answer, or an empty text where nothing that was found supports one."""

    object: Literal["answer"] = "answer"
    model: str
    question: str
    text: str
    supported: bool
    score: float | None
    threshold: float
    reader: str
    read: int
    citations: list[Citation]
    others: list[OtherAnswer]
    mode: str
    hits: list[SearchHit]
    first: list[SearchHit]
    candidates: int
    seconds: dict[str, float]
    routing: Routing | None = None


class Health(BaseModel):
    """How the server is."""

    status: Literal["ok", "loading", "draining", "failed"]
