"""The saved folder as Hugging Face classes: what `AutoModel`, `SentenceTransformer` and `CrossEncoder` get when they open it.

They wrap the very model that `twofold.load` builds, so that the numbers are its numbers: the padded rows of the caller become
one packed stream, run through the one backbone, and go back into rows. Importing this module registers the classes.
Shapes: N rows, L tokens of the longest, T tokens in all, D features.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput

from twofold.errors import ConfigError

if TYPE_CHECKING:  # imported when used: transformers may be loaded, and with it this module, by one of these
    from sentence_transformers import CrossEncoder, SentenceTransformer

    from twofold.backbone.tokens import Ids, Template
    from twofold.model.unified import UnifiedModel

PRECISIONS = {torch.float32: "fp32", torch.bfloat16: "bf16", "float32": "fp32", "bfloat16": "bf16", "auto": None, None: None}
"""Hugging Face's `dtype` → our precision."""
HANDLED = {"config", "device_map", "dtype", "torch_dtype", "unified", "plugins", "backbone"}
HARMLESS = {
    *("_from_auto", "_commit_hash", "adapter_kwargs", "cache_dir", "code_revision", "force_download", "local_files_only"),
    *("low_cpu_mem_usage", "num_labels", "proxies", "return_dict", "revision", "subfolder", "token", "trust_remote_code"),
    *("use_safetensors", "weights_only"),
}
"""Arguments of `from_pretrained` that change nothing here: no code of a folder ever runs, and only safetensors are read."""
ASIDE = {"query": "retrieve", "document": "retrieve"}
"""What sentence-transformers calls a task → our task."""


class TwofoldConfig(PretrainedConfig):  # type: ignore[misc, no-untyped-call, unused-ignore]
    """config.json of a saved folder; what we need of it stands under "twofold"."""

    model_type = "twofold"
    hidden_size: int = 0
    twofold: dict[str, Any] | None = None


class TwofoldPreTrained(PreTrainedModel):  # type: ignore[misc, no-untyped-call, unused-ignore]
    """What both classes share: they are opened through `twofold.load`, and saved by `twofold.model.folder.save` only."""

    config_class = TwofoldConfig
    base_model_prefix = "unified"
    main_input_name = "input_ids"

    def __init__(self, config: TwofoldConfig, unified: UnifiedModel | None = None) -> None:
        super().__init__(config)
        if unified is None:
            raise ConfigError(f"{type(self).__name__}: a config alone makes no model; use from_pretrained(folder)")
        self.unified = unified

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *_: Any, **options: Any) -> Any:  # type: ignore[override, unused-ignore]
        """Opens a folder or hub id as `twofold.load` does: verified, with its backbone and its experts, proved by its canary.

        Honoured: `device_map` (one device), `dtype` (bfloat16: mixed precision), `backbone`, `plugins` (see `load`), `revision`,
        `token`, `cache_dir`, `local_files_only`; `unified` wraps a model that is loaded already. Raises CheckpointError as
        `load` does, and ConfigError for an option that would have to be ignored.
        """
        from twofold.model import folder as folders

        if unknown := sorted(key for key, value in options.items() if key not in HANDLED | HARMLESS and value is not None):
            raise ConfigError(
                f"{cls.__name__}.from_pretrained takes no {', '.join(unknown)}: Twofold chooses its own attention and kernels"
            )
        hub = {key: options[key] for key in ("revision", "token", "cache_dir", "local_files_only") if options.get(key) is not None}
        path = folders.locate(str(pretrained_model_name_or_path), **hub)
        unified = options.get("unified")
        if unified is None:
            asked = options.get("dtype") or options.get("torch_dtype")
            if asked not in PRECISIONS:
                raise ConfigError(f"dtype {asked}: use float32 or bfloat16")
            given = {key: options[key] for key in ("backbone", "plugins") if options.get(key) is not None}
            unified = folders.load(path, _device(options.get("device_map")), precision=PRECISIONS[asked], **given)
        plain = json.loads((path / "config.json").read_text(encoding="utf-8"))
        chosen = getattr(options.get("config"), "_attn_implementation", None)
        if chosen and not {"attn_implementation", "_attn_implementation"} & plain.keys():  # what a file asks for is not asked by the user
            raise ConfigError(f"{cls.__name__}.from_pretrained takes no attn_implementation: Twofold chooses its own attention")
        known = {key: plain[key] for key in ("architectures", "hidden_size", "id2label", "label2id", "sentence_transformers", "twofold")}
        wrapped: Any = cls(TwofoldConfig(**known), unified)
        wrapped.config.name_or_path = wrapped.name_or_path = str(pretrained_model_name_or_path)
        return wrapped.eval()

    def save_pretrained(self, *_: Any, **__: Any) -> None:
        """Raises ConfigError: each library would write its own view of the folder and lose the others."""
        raise ConfigError("save with twofold.model.folder.save(model.unified, path): one folder that every library opens")

    def _init_weights(self, module: Any) -> None:
        """Nothing is ever initialised here: the weights were loaded."""


class TwofoldModel(TwofoldPreTrained):  # type: ignore[no-untyped-call, unused-ignore]
    """The backbone with its experts: token features, to be pooled and normalised by the caller."""

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        task: str | None = None,
        **_: Any,
    ) -> BaseModelOutput:
        """Rows (N, L) with padding on either side → last_hidden_state (N, L, D) in fp32, 0 on padding.

        `task` is one of the model's, or "query" or "document" as sentence-transformers says them: both retrieve, as does
        none. Raises ValueError for a task that the model does not do and for a row longer than its positions reach.
        """
        from twofold.backbone.packed import Pack

        name = ASIDE.get(task or "query", task or "")
        if name not in self.unified.tasks:
            raise ValueError(f"task {task!r}: this model was not made for {name!r}; it does {list(self.unified.tasks)}")
        mask_NL = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
        order_N = mask_NL.sum(1).argsort(descending=True, stable=True)
        mask_NL = mask_NL[order_N]
        lengths = [length for length in mask_NL.sum(1).tolist() if length]
        width = self.unified.width
        sorted_NLD = torch.zeros(*input_ids.shape, width, device=self.unified.backbone.device)
        if lengths:
            limit, usual = self.unified.backbone.position_limit, self.unified.tokens.max_length
            if lengths[0] > limit:
                better = f"tokenise with truncation=True, max_length={usual}"
                raise ValueError(f"a row of {lengths[0]} tokens, and this model reads {limit}: {better}")
            types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
            ids_T, types_T = input_ids[order_N][mask_NL], types[order_N][mask_NL]
            pack = Pack(ids_T, types_T, torch.ones_like(ids_T), tuple(lengths), tuple(range(len(lengths))), 0)
            owner: Any = self.unified.tasks[name]
            passes = owner.passes(self.unified.encoder, pack, task, usual) if hasattr(owner, "passes") else name
            hidden_TD, _ = self.unified.backbone(pack, passes)
            if self.unified.backbone.pooling == "text":  # a mean is normalised afterwards, so that zeros are as good as nothing
                hidden_TD = hidden_TD * own_tokens(lengths, self.unified.tokens.single).to(hidden_TD.device)[:, None]
            sorted_NLD = sorted_NLD.masked_scatter(mask_NL.to(hidden_TD.device)[..., None], hidden_TD.float())
        return BaseModelOutput(last_hidden_state=sorted_NLD[order_N.argsort()])  # type: ignore[arg-type, unused-ignore]


class TwofoldForSequenceClassification(TwofoldPreTrained):  # type: ignore[no-untyped-call, unused-ignore]
    """The pair score as the one logit of a classifier: the raw score, exactly as `UnifiedModel.score` gives it."""

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None, **__: Any
    ) -> SequenceClassifierOutput:
        """Rows (N, L) of tokenised pairs → logits (N, 1) in fp32.

        The two texts are found in each row again, and are cut and framed as `TextTokens.pairs` does it: first the query to
        its length, then the document to what is left, with the pair's prompts. So the tokenizer must not have cut them
        shorter: the saved one leaves twice a pair's length, `CrossEncoder(path, max_length=…)` may cut more. Raises
        ValueError for a row that is no pair.
        """
        if "rerank" not in self.unified.tasks:
            raise ValueError(f"this model was not made for 'rerank'; it does {list(self.unified.tasks)}")
        if self.unified.reads_lists():
            raise ValueError("this model's reranker reads a query's candidates together, not pair by pair: use twofold.load(path).rank")
        mask_NL = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
        template = self.unified.tokens.double
        queries, documents = [], []
        for row, mask in enumerate(mask_NL):
            types = None if token_type_ids is None else token_type_ids[row][mask].tolist()
            try:
                query, document = parts_of_pair(input_ids[row][mask].tolist(), types, template)
            except ValueError as error:
                raise ValueError(f"row {row}: {error}") from None
            queries.append(query)
            documents.append(document)
        rerank: Any = self.unified.tasks["rerank"]
        score_N, _ = rerank.scores(self.unified.encoder, self.unified.tokens.pair_ids(queries, documents), self.unified.token_budget)
        return SequenceClassifierOutput(logits=score_N[:, None])  # type: ignore[arg-type, unused-ignore]


def own_tokens(lengths: Sequence[int], template: Template) -> Tensor:
    """(T,) True for what stands between a template's prefix and suffix, of texts of these lengths one after the other; for a text
    that has nothing there, everything."""
    start, end = len(template.prefix), len(template.suffix)
    rows = [torch.arange(length) for length in lengths]
    return torch.cat([(row >= start) & (row < len(row) - end) if len(row) > start + end else row >= 0 for row in rows])


def parts_of_pair(ids: Ids, types: list[int] | None, template: Template) -> tuple[Ids, Ids]:
    """Query and document of a tokenised pair, without the template's tokens.

    The document begins where the token types change, where they do; else behind the first place of the template's middle.
    Raises ValueError where there is no second text.
    """
    start, end = len(template.prefix), len(ids) - len(template.suffix)
    middle = template.middle
    first, between, second = template.types[1:4] if middle or template.types[1] != template.types[3] else (0, 0, 1)  # as when asked
    if ids[:start] != template.prefix or ids[max(end, 0) :] != template.suffix or end - start < len(middle):
        raise ValueError("not a pair as this model's tokenizer makes it: give it query and document together")
    if types is not None and first != second:
        shared = between == second  # the middle has the second text's type
        at = next((i for i in range(start, end) if types[i] == second), end - (len(middle) if shared else 0))
        query_end, document_start = (at, at + len(middle)) if shared else (at - len(middle), at)
    elif middle:
        query_end = next((i for i in range(start, end - len(middle) + 1) if ids[i : i + len(middle)] == middle), -1)
        document_start = query_end + len(middle)
    else:
        raise ValueError("without token types the two texts of a pair cannot be told apart: tokenise with return_token_type_ids=True")
    if query_end < start or ids[query_end:document_start] != middle:
        raise ValueError("not a pair: one text only; give query and document together")
    return ids[start:query_end], ids[document_start:end]


def as_sentence_transformer(model: UnifiedModel) -> SentenceTransformer:
    """A `SentenceTransformer` around this very model: the same weights, no copy."""
    from sentence_transformers import SentenceTransformer

    with _views(model) as options:
        return SentenceTransformer(**options)


def as_cross_encoder(model: UnifiedModel) -> CrossEncoder:
    """A `CrossEncoder` around this very model: the same weights, no copy."""
    from sentence_transformers import CrossEncoder

    with _views(model) as options:
        encoder: CrossEncoder = CrossEncoder(**options)
        return encoder


@contextmanager
def _views(model: UnifiedModel) -> Iterator[dict[str, Any]]:
    """The arguments by which sentence-transformers opens a model that is loaded already: a folder without weights, and the model."""
    from twofold.model.views import write_views

    with TemporaryDirectory(prefix="twofold-") as path:
        write_views(Path(path), model, {})
        device = str(model.backbone.device)
        yield {"model_name_or_path": path, "device": device, "local_files_only": True, "model_kwargs": {"unified": model}}


def _device(device_map: Any) -> torch.device:
    """One device. Raises ConfigError for a map over several."""
    device = device_map.get("") if isinstance(device_map, dict) and set(device_map) == {""} else device_map
    try:
        return torch.device("cpu" if device is None else device)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"device_map {device_map!r}: give one device, such as 'cpu' or 'cuda:0'") from error


AutoConfig.register(TwofoldConfig.model_type, TwofoldConfig, exist_ok=True)
AutoModel.register(TwofoldConfig, TwofoldModel, exist_ok=True)
AutoModelForSequenceClassification.register(TwofoldConfig, TwofoldForSequenceClassification, exist_ok=True)
