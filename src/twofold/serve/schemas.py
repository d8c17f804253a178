"""What goes in and comes out of every route: the shapes of OpenAI, Cohere, Jina, vLLM and TEI.

Options that a client of another server sends and that mean nothing here are passed over; what it asks for and cannot have is refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StringConstraints,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

TEXT_CHARACTERS = 200_000
"""Of one text. More than any model reads, and cut long before it is tokenised."""
MOST_TEXTS, MOST_DOCUMENTS, MOST_IDS = 2048, 1000, 8192
QUERY_CHARACTERS = 8192


def _whole(number: object) -> object:
    """JSON has one kind of number: 9.0 is a whole one."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


Whole: TypeAlias = Annotated[int, BeforeValidator(_whole)]


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
TokenIds: TypeAlias = Annotated[list[Annotated[Whole, Field(ge=0, lt=1 << 31)]], Field(min_length=1, max_length=MOST_IDS)]
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
    dimensions: Annotated[Whole, Field(ge=1, le=1 << 20)] | None = None
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


class Ranking(Shape):
    """What both forms of reranking have in common."""

    query: Question
    model: ModelName = None
    top_n: Annotated[Whole, Field(ge=1, le=1 << 31)] | None = None
    raw_scores: StrictBool = Field(False, description="The model's own scores instead of numbers between 0 and 1. Their order is the same.")
    truncate: StrictBool = Field(True, description="With `false`, a pair that is longer than the model reads is refused (TEI).")

    @property
    def bodies(self) -> list[str]:
        """The documents' texts."""
        raise NotImplementedError


class RerankRequest(Ranking):
    """Cohere's and Jina's."""

    documents: Annotated[list[Text | TextDocument], Field(min_length=1, max_length=MOST_DOCUMENTS)]
    return_documents: StrictBool | None = None

    @property
    def bodies(self) -> list[str]:
        return [each if isinstance(each, str) else each.text for each in self.documents]


class TeiRequest(Ranking):
    """TEI's; the answer has TEI's form too. With `documents` beside `texts`, it is the other form."""

    texts: Annotated[list[Text], Field(min_length=1, max_length=MOST_DOCUMENTS)]
    return_text: StrictBool = False

    @property
    def bodies(self) -> list[str]:
        return self.texts


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


class Scoring(Shape):
    """What both forms of scoring have in common."""

    model: ModelName = None

    @property
    def sides(self) -> tuple[Side, Side]:
        """Both as they were given."""
        raise NotImplementedError

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Query and document of each pair. Raises ValueError where the numbers do not fit."""
        left, right = ([side] if isinstance(side, str) else side for side in self.sides)
        if len(left) != len(right) and 1 not in (len(left), len(right)):
            raise ValueError(f"{len(left)} and {len(right)} texts: give as many of each, or one")
        size = max(len(left), len(right))
        return list(zip(left * (size // len(left)), right * (size // len(right)), strict=True))


class ScoreRequest(Scoring):
    """vLLM's: one text goes with each of many."""

    text_1: Side
    text_2: Side

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.text_1, self.text_2


class QueriesRequest(Scoring):
    """vLLM's other form."""

    queries: Side
    documents: Side

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.queries, self.documents


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


class Health(BaseModel):
    """How the server is."""

    status: Literal["ok", "loading", "draining", "failed"]
