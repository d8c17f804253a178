"""`UnifiedModel`: one loaded backbone that embeds, scores pairs and ranks.

Shapes: N texts or pairs, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from twofold.backbone.backbone import Backbone
from twofold.backbone.memory import give_back
from twofold.backbone.tokens import TextTokens
from twofold.core.routing import Routing
from twofold.model.folding import fold, unfold
from twofold.model.spec import ModelSpec
from twofold.model.weights import mixture_parameters
from twofold.tasks import Encoder, Packed, Task, kind_of, lists_of, task_name
from twofold.tasks.rerank import RerankTask
from twofold.tasks.retrieve import RetrieveTask

WINDOW = 2048
"""Texts that are tokenised and sorted by length together: memory is bounded by a window, not by the input."""
TOKEN_BUDGET = 4096
"""Tokens of one forward pass: enough for full speed on a CPU, small enough that its buffers are used again."""
GPU_TOKEN_BUDGET = 65536
"""The same on a GPU, which a small pass leaves waiting for its next kernel."""

Progress = Callable[[int, int], None]
Item = TypeVar("Item")
SomeTask = TypeVar("SomeTask", bound=Task[Any])
SomePack = TypeVar("SomePack", bound=Packed)


@dataclass(frozen=True)
class Ranked:
    """One document of a ranking."""

    index: int
    """Its place in the list that was given."""
    score: float
    document: str


class UnifiedModel(nn.Module):
    """Made by `model.build.build_model` or `twofold.load`. Not for use from inside a running training step of the same thread."""

    def __init__(
        self, spec: ModelSpec, backbone: Backbone, tokens: TextTokens, tasks: Mapping[str, Task[Any]], rerank_weight: float = 0.5
    ) -> None:
        super().__init__()
        self.spec, self.tokens = spec, tokens
        self.backbone = backbone
        self.tasks = nn.ModuleDict(tasks)
        self.rerank_weight = rerank_weight
        """The share of the pair score when a pipeline interpolates it with the first stage; tuned on dev, saved with the model."""
        self.variant_weights: dict[str, float] = {}
        """The same for variants that have one of their own: `legal` → the share of `rerank:legal`."""
        self.never_trained: list[nn.Parameter] = []
        """What no stage may change: the older part of a model that was given a further expert."""
        self.training_tokens: TextTokens | None = None
        self.truncated = {"texts": 0, "pairs": 0}
        """How many texts and pairs were cut since the model was made."""

    @property
    def encoder(self) -> Encoder:
        """What tasks work with; while training, texts may be cut shorter (`training_tokens`)."""
        return Encoder(self.backbone, self.training_tokens if self.training and self.training_tokens else self.tokens)

    @property
    def width(self) -> int:
        """D."""
        return self.backbone.width

    @property
    def token_budget(self) -> int:
        """Tokens of one forward pass that suit the device the model is on."""
        return TOKEN_BUDGET if self.backbone.device.type == "cpu" else GPU_TOKEN_BUDGET

    def encode(
        self,
        texts: Sequence[str],
        *,
        prompt: str | None = None,
        dims: int | None = None,
        variant: str = "",
        token_budget: int | None = None,
        progress: Progress | None = None,
    ) -> NDArray[np.float32]:
        """Unit vectors (N, D) in fp32. `prompt` is "query", "document" or none; `dims` keeps the first so many features.

        `variant`: by the task `retrieve:VARIANT`, if the model has been given one. `token_budget`: tokens of one forward pass, as many as
        suit the device where none are given.
        """
        budget = token_budget or self.token_budget
        task = self._task("retrieve", variant, RetrieveTask)
        if prompt not in (None, "query", "document"):
            raise ValueError(f"prompt {prompt!r}: use 'query', 'document' or none")
        if dims is not None and not 0 < dims <= self.width:
            raise ValueError(f"dims {dims}: use 1 to {self.width}")
        out_ND = np.empty((len(texts), dims or self.width), dtype=np.float32)
        done = 0
        for pack in self._windows(_checked(texts), lambda window: self.tokens.texts(window, prompt), "texts", progress):
            vector_SD, _ = task.vectors(self.encoder, pack, budget, task=task.passes(self.encoder, pack, prompt, budget))
            window_SD = _numpy(vector_SD if dims is None else F.normalize(vector_SD[:, :dims], dim=-1))
            out_ND[done : done + len(window_SD)] = window_SD
            done += len(window_SD)
        return out_ND

    def encode_queries(self, texts: Sequence[str], variant: str = "") -> NDArray[np.float32]:
        """`encode` with the query prompt."""
        return self.encode(texts, prompt="query", variant=variant)

    def encode_documents(self, texts: Sequence[str], variant: str = "") -> NDArray[np.float32]:
        """`encode` with the document prompt."""
        return self.encode(texts, prompt="document", variant=variant)

    def score(
        self,
        pairs: Sequence[tuple[str, str]],
        *,
        variant: str = "",
        token_budget: int | None = None,
        progress: Progress | None = None,
    ) -> NDArray[np.float32]:
        """(N,) raw scores of (query, document) pairs, read together by the cross-encoder; `variant` as for `encode`.

        A model whose reranker reads whole lists takes neighbours of the same query for one list, the first stage's best first.
        """
        name = task_name("rerank", variant)
        if self.reads_lists(variant):
            answers = self.predict(name, lists_of(pairs), token_budget=token_budget, progress=progress)
            return np.array([score for answer in answers for score in answer], dtype=np.float32)
        task = self._task(name, "", RerankTask)
        _checked([text for pair in pairs for text in pair])
        out = [np.zeros(0, dtype=np.float32)]
        for pack in self._windows(list(pairs), self.tokens.pairs, "pairs", progress):
            out.append(_numpy(task.scores(self.encoder, pack, token_budget or self.token_budget)[0]))
        return np.concatenate(out)

    def reads_lists(self, variant: str = "") -> bool:
        """Whether a pair's score depends on the query's other candidates. Raises ValueError where the model does not rerank."""
        task: Task[Any] = self._task("rerank", variant, Task)  # type: ignore[type-abstract]
        return task.reads_lists

    def rank(self, query: str, documents: Sequence[str], top_k: int | None = None, *, variant: str = "") -> list[Ranked]:
        """The documents by raw pair score, best first; equal scores keep the given order."""
        scores = self.score([(query, document) for document in documents], variant=variant)
        best = np.argsort(-scores, kind="stable")[:top_k]
        return [Ranked(int(i), float(scores[i]), documents[i]) for i in best]

    def predict(self, task: str, items: Sequence[Any], *, token_budget: int | None = None, progress: Progress | None = None) -> list[Any]:
        """A task's answer to each text, pair or list, as it reads them: `Guess`es for `classify`, and what a task of yours gives.

        Raises ValueError for a task that the model does not do.
        """
        module: Task[Any] = self._task(task, "", Task)  # type: ignore[type-abstract]
        _checked([text for item in items for text in ([item] if isinstance(item, str) else item)])
        out: list[Any] = []
        what = "pairs" if kind_of(task) in ("rerank", "answer") else "texts"
        for pack in self._windows(list(items), lambda window: module.pack(self.tokens, window), what, progress):
            out += module.predict(self.encoder, pack, token_budget or self.token_budget)
        return out

    @torch.inference_mode()
    def routings(
        self, texts: Sequence[str] = (), pairs: Sequence[tuple[str, str]] = (), *, prompt: str | None = None, variant: str = ""
    ) -> dict[str, Routing]:
        """What every layer's router decides for these texts (task retrieve) or pairs (task rerank), in the order of the packed stream.

        `prompt` and `variant` as for `encode`.
        """
        if pairs:
            pack = self.tokens.pairs(pairs)
            passes: str | Sequence[str] = task_name("rerank", variant)
        else:
            pack = self.tokens.texts(_checked(texts), prompt)
            passes = self._task("retrieve", variant, RetrieveTask).passes(self.encoder, pack, prompt, self.token_budget)
        found: dict[str, Routing] = self.backbone(pack, passes)[1]
        return found

    def retire(self, tasks: Sequence[str]) -> None:
        """Takes out tasks that the model only learnt from: their heads, and their names in what is saved."""
        for task in tasks:
            del self.tasks[task]
        self.spec = replace(self.spec, tasks={task: options for task, options in self.spec.tasks.items() if task not in tasks})

    def fold(self, task: str) -> None:
        """Merges a task's experts into the weights, where its routing is constant: the model then does that task only, at no extra cost."""
        fold(self.backbone.model, task)

    def unfold(self) -> None:
        """Undoes `fold`, bit for bit."""
        unfold(self.backbone.model)

    def groups(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """Parameter group → its (name, parameter)s: `expert:NAME`, `bank` (what experts share), `router`, `head:TASK`, `backbone`."""
        added = mixture_parameters(self.backbone.model)
        ids = {id(parameter) for _, parameter in added.values()}
        found: dict[str, list[tuple[str, nn.Parameter]]] = {}
        for name, (group, parameter) in added.items():
            found.setdefault(group, []).append((name, parameter))
        for task, module in self.tasks.items():
            for name, parameter in module.named_parameters():
                found.setdefault(f"head:{task}", []).append((f"{task}.{name}", parameter))
        rest = [(name, parameter) for name, parameter in self.backbone.model.named_parameters() if id(parameter) not in ids]
        return {**found, "backbone": rest}

    def _task(self, name: str, variant: str, kind: type[SomeTask]) -> SomeTask:
        name = task_name(name, variant)
        if name not in self.tasks:
            raise ValueError(f"this model was not made for {name!r}; it does {sorted(self.tasks)}")
        task = self.tasks[name]
        assert isinstance(task, kind)
        return task

    def _windows(
        self, items: Sequence[Item], pack: Callable[[Sequence[Item]], SomePack], what: str, progress: Progress | None
    ) -> Iterator[SomePack]:
        """Packs of up to `WINDOW` items each; the consumer runs in inference mode, and the model in eval mode."""
        training = self.training
        if training:  # not else: telling every module so takes a tenth of a short query's time (docs/log.md)
            self.eval()
        try:
            with torch.inference_mode():
                for start in range(0, len(items), WINDOW):
                    packed = pack(items[start : start + WINDOW])
                    self.truncated[what] += packed.truncated
                    yield packed
                    if len(items) > WINDOW:
                        give_back()
                    if progress is not None:
                        progress(min(start + WINDOW, len(items)), len(items))
        finally:
            if training:
                self.train()


def _numpy(tensor: Tensor) -> NDArray[np.float32]:
    return tensor.float().cpu().numpy()


def _checked(texts: Sequence[str]) -> Sequence[str]:
    """Raises TypeError for what is no text and ValueError for lone surrogates, which crash tokenizers."""
    if isinstance(texts, str):
        raise TypeError("give a list of texts, not one text")
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"text {i} is a {type(text).__name__}, not a string")
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise ValueError(f"text {i} holds a lone surrogate at character {error.start}: it is not valid Unicode") from None
    return texts
