"""What goes in and comes out of the routes that ask the index: our own shapes, since there are no others to follow."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, Field, StrictBool, StrictFloat, StrictInt, StringConstraints

from twofold.serve.schemas import MOST_DOCUMENTS, ModelName, Question, Shape, Whole

Value: TypeAlias = str | StrictInt | StrictFloat | StrictBool
Where: TypeAlias = Annotated[
    dict[Annotated[str, StringConstraints(min_length=1, max_length=200)], Value | Annotated[list[Value], Field(max_length=100)]],
    Field(max_length=20),
]


class Asked(Shape):
    """What a search and an answer have in common."""

    depth: Annotated[Whole, Field(ge=1, le=MOST_DOCUMENTS)] = Field(20, description="How many of the first stage's passages are reranked.")
    mode: Literal["hybrid", "dense", "lexical"] = "hybrid"
    where: Where | None = Field(None, description="Conditions on metadata: each key must have the value, or one of the values.")
    rerank: StrictBool = True
    explain: StrictBool = Field(False, description="Adds what the routers decide, layer by layer, for the query and each pair.")
    model: ModelName = None


class SearchRequest(Asked):
    """A question to the index."""

    query: Question
    top_k: Annotated[Whole, Field(ge=1, le=100)] = 10


class AnswerRequest(Asked):
    """A question to be answered from the index."""

    question: Question
    top_k: Annotated[Whole, Field(ge=1, le=100)] = 10
    read: Annotated[Whole, Field(ge=1, le=20)] = Field(5, description="How many of the best passages are read for the answer.")


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
