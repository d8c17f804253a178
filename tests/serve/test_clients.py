"""Other people's clients against a live server, unchanged: only an address, a key and the model's name are ours.

Each is skipped where it is not installed: pip install -c constraints.txt -e ".[clients]".
"""

from __future__ import annotations

import gc
from collections.abc import Iterator

import httpx2
import numpy as np
import pytest

from tests.serve.conftest import DOCUMENTS, TEXTS, served
from twofold.model.system import System
from twofold.model.unified import UnifiedModel
from twofold.serve.gate import Rules
from twofold.serve.keys import Key, Keys, sha256
from twofold.serve.service import Loaded, Service

KEY = "k" * 32
QUERY = "what is red"

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """Some clients leave their sockets to the garbage collector, which would complain in the middle of another file's test."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def address(system: System) -> Iterator[str]:
    """A server that asks for a key, as a real one would."""
    with served(Loaded({"": system}), Rules(Keys([Key("test", "use", sha256(KEY))]))) as pair:
        client: httpx2.Client = pair[1]
        service: Service = pair[0]
        assert service.status == "ok"
        yield str(client.base_url).rstrip("/")


@pytest.fixture(scope="module")
def vectors(model: UnifiedModel) -> np.ndarray:
    return model.encode(TEXTS)


@pytest.fixture(scope="module")
def order(model: UnifiedModel) -> list[int]:
    return [each.index for each in model.rank(QUERY, DOCUMENTS)]


def close(found: object, vectors: np.ndarray) -> bool:
    return bool(np.abs(np.array(found) - vectors).max() < 1e-5)


def test_openai(address: str, vectors: np.ndarray, model: UnifiedModel) -> None:
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"{address}/v1", api_key=KEY, max_retries=0)
    found = client.embeddings.create(model="tiny", input=TEXTS)  # it asks for base64 by itself
    assert close([row.embedding for row in found.data], vectors) and found.usage.total_tokens > 0
    short = client.embeddings.create(model="tiny", input=TEXTS, dimensions=8, encoding_format="float")
    assert close([row.embedding for row in short.data], model.encode(TEXTS, dims=8))
    assert [each.id for each in client.models.list()] == ["tiny"]
    with pytest.raises(openai.NotFoundError, match="there is tiny"):
        client.embeddings.create(model="gpt-5", input="a")
    with pytest.raises(openai.UnprocessableEntityError) as told:
        client.embeddings.create(model="tiny", input="")
    assert told.value.code == "empty"
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{address}/v1", api_key="wrong", max_retries=0).models.list()


def test_cohere(address: str, order: list[int]) -> None:
    cohere = pytest.importorskip("cohere")
    client = cohere.ClientV2(api_key=KEY, base_url=address)
    found = client.rerank(model="tiny", query=QUERY, documents=DOCUMENTS, top_n=3)
    assert [row.index for row in found.results] == order[:3]
    assert all(0 <= row.relevance_score <= 1 for row in found.results)
    assert [
        row.index for row in cohere.Client(api_key=KEY, base_url=address).rerank(model="tiny", query=QUERY, documents=DOCUMENTS).results
    ] == order
    with pytest.raises(cohere.UnprocessableEntityError):
        client.rerank(model="tiny", query="", documents=DOCUMENTS)


def test_langchain(address: str, vectors: np.ndarray, order: list[int]) -> None:
    embeddings = pytest.importorskip("langchain_openai").OpenAIEmbeddings(
        base_url=f"{address}/v1", api_key=KEY, model="tiny", check_embedding_ctx_length=False
    )
    assert close(embeddings.embed_documents(TEXTS), vectors) and close(embeddings.embed_query(TEXTS[0]), vectors[0])
    documents = pytest.importorskip("langchain_core.documents")
    reranker = pytest.importorskip("langchain_cohere").CohereRerank(base_url=address, cohere_api_key=KEY, model="tiny", top_n=4)
    assert [row["index"] for row in reranker.rerank(DOCUMENTS, QUERY)] == order
    found = reranker.compress_documents([documents.Document(text) for text in DOCUMENTS], QUERY)
    assert [each.page_content for each in found] == [DOCUMENTS[i] for i in order]


def test_langchain_with_token_ids_of_another_tokenizer_is_told_what_to_do(address: str) -> None:
    """LangChain's default sends ids of OpenAI's tokenizer; its tables come over the network, so the request is made by hand."""
    answer = httpx2.post(
        f"{address}/v1/embeddings", json={"input": [[9906, 1917]], "model": "tiny"}, headers={"Authorization": f"Bearer {KEY}"}
    )
    assert answer.status_code == 422 and "check_embedding_ctx_length=False" in answer.json()["error"]["message"]


def test_llamaindex(address: str, vectors: np.ndarray, order: list[int]) -> None:
    like = pytest.importorskip("llama_index.embeddings.openai_like")
    embedding = like.OpenAILikeEmbedding(model_name="tiny", api_base=f"{address}/v1", api_key=KEY)
    assert close(embedding.get_text_embedding_batch(TEXTS), vectors) and close(embedding.get_query_embedding(TEXTS[0]), vectors[0])
    schema = pytest.importorskip("llama_index.core.schema")
    nodes = [schema.NodeWithScore(node=schema.TextNode(text=text)) for text in DOCUMENTS]
    bundle = schema.QueryBundle(QUERY)
    cohere = pytest.importorskip("llama_index.postprocessor.cohere_rerank").CohereRerank(
        base_url=address, api_key=KEY, model="tiny", top_n=4
    )
    jina = pytest.importorskip("llama_index.postprocessor.jinaai_rerank").JinaRerank(
        base_url=f"{address}/v1", api_key=KEY, model="tiny", top_n=4
    )
    tei = pytest.importorskip("llama_index.postprocessor.tei_rerank").TextEmbeddingInference(
        base_url=address, auth_token=f"Bearer {KEY}", model_name="tiny", top_n=4
    )
    for reranker in (cohere, jina, tei):
        found = reranker.postprocess_nodes(nodes, bundle)
        assert [each.node.get_content() for each in found] == [DOCUMENTS[i] for i in order], type(reranker)


def test_haystack(address: str, vectors: np.ndarray, order: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAYSTACK_TELEMETRY_ENABLED", "false")
    haystack = pytest.importorskip("haystack")
    embedders = pytest.importorskip("haystack.components.embedders")
    key = pytest.importorskip("haystack.utils").Secret.from_token(KEY)
    text = embedders.OpenAITextEmbedder(api_base_url=f"{address}/v1", api_key=key, model="tiny")
    assert close(text.run(TEXTS[0])["embedding"], vectors[0])
    documents = [haystack.Document(content=each) for each in TEXTS]
    found = embedders.OpenAIDocumentEmbedder(api_base_url=f"{address}/v1", api_key=key, model="tiny").run(documents)["documents"]
    assert close([each.embedding for each in found], vectors)
    rankers = pytest.importorskip("haystack_integrations.components.rankers.cohere")
    ranker = rankers.CohereRanker(api_base_url=address, api_key=key, model="tiny", top_k=4)
    ranked = ranker.run(query=QUERY, documents=[haystack.Document(content=each) for each in DOCUMENTS])["documents"]
    assert [each.content for each in ranked] == [DOCUMENTS[i] for i in order]


@pytest.mark.parametrize(("provider", "path"), [("cohere", "/v1/rerank"), ("jina", "/v1/rerank"), ("text-embeddings-inference", "/rerank")])
def test_rerankers(provider: str, path: str, address: str, order: list[int]) -> None:
    library = pytest.importorskip("rerankers.models.api_rankers")
    ranker = library.APIRanker("tiny", KEY, provider, verbose=0, url=f"{address}{path}")
    found = ranker.rank(QUERY, DOCUMENTS)
    assert [each.document.text for each in found.results] == [DOCUMENTS[i] for i in order]
