"""`Backbone`: a Hugging Face model that turns a packed stream of tokens into hidden states, and pools them.

Shapes: T tokens of the stream, S segments, L tokens of the longest, D features.
"""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from twofold.backbone import packed
from twofold.backbone.linear import speed_up
from twofold.backbone.packed import Pack
from twofold.core.routing import Batch, Routing, checkpoint_contexts, running

if TYPE_CHECKING:
    from twofold.backbone.graph import Graph

log = logging.getLogger(__name__)

TOLERANCE = 1e-4
"""Largest difference between packed and padded hidden states, relative to their size, that counts as equal in fp32."""
HALF_TOLERANCE = 5e-2
"""The same in half precision, where both round in every layer, of the norm of all differences: 36 layers of bf16 come to .03."""
OFFSET_FAMILIES = {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "data2vec-text", "roberta-prelayernorm", "xmod", "longformer"}
"""Families whose positions start at padding_idx + 1."""


def position_offset(config: Any) -> int:
    """The position of a text's first token: some families keep the first ones for padding."""
    return (config.pad_token_id or 0) + 1 if config.model_type in OFFSET_FAMILIES else 0


def position_limit(config: Any) -> int:
    """The most tokens of one text that a model of this config has positions for."""
    limit = getattr(config.get_text_config(), "max_position_embeddings", None)
    return (1 << 20) if limit is None else int(limit) - position_offset(config)


class Backbone(nn.Module):
    """Wraps `model`; `attention` is "packed", "padded", or "auto": packed where a comparison at load proves it exact.

    `precision` "bf16" is mixed precision: products in bf16, weights and layer norms in fp32. `pooling` is "mean", "first",
    "last", "text" (the mean over a text's own tokens: neither template nor prompt) or "auto" (last for causal models, else mean).
    In the passes of the tasks `both_ways` every token of a causal model sees the whole text (GritLM, arXiv 2402.09906); without
    a window only, which would have to open on both sides.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        pooling: str = "auto",
        attention: str = "auto",
        precision: str = "fp32",
        both_ways: Collection[str] = (),
    ) -> None:
        super().__init__()
        if pooling not in ("auto", "mean", "first", "last", "text") or attention not in ("auto", "packed", "padded"):
            raise ValueError(f"pooling {pooling!r}, attention {attention!r}: use auto, mean, first, last or text; auto, packed or padded")
        if precision not in ("fp32", "bf16", "bf16-weights"):
            raise ValueError(f"precision {precision!r}: use fp32, bf16 or bf16-weights")
        self.model = model
        self.config: Any = _own_config(model)
        self.width = int(self.config.get_text_config().hidden_size)
        self.both_ways = frozenset(both_ways) if self.causal else frozenset()
        if self.both_ways and getattr(self.config.get_text_config(), "sliding_window", None):
            raise ValueError(
                f"{self.config.model_type} looks through a sliding window: it cannot attend both ways in {sorted(self.both_ways)}"
            )
        self.pooling = pooling if pooling != "auto" else ("last" if self.causal else "mean")
        parameters = inspect.signature(model.forward).parameters
        self._accepts = {name for name in ("position_ids", "token_type_ids") if name in parameters}
        kinds = getattr(self.config, "type_vocab_size", 0) or 0
        self.types = "token_type_ids" in self._accepts and kinds > 1
        self.offset = position_offset(self.config)
        self._unpacked = str(self.config._attn_implementation)
        self.graphs: dict[str, Graph] = {}  # task → the compiled graph of its passes, where one was exported (`graph.export`)
        self.autocast = False
        self.why_padded = "asked for" if attention == "padded" else self._prove_packed()
        self.autocast = precision == "bf16"
        speed_up(model)
        if attention != "padded" and not self.why_padded and self.autocast and self.device.type == "cuda":
            self.why_padded = self._prove_packed()  # half precision has a kernel of its own there
        self.packed = not self.why_padded
        if self.why_padded and attention == "packed":
            raise ValueError(f"packed attention is not exact for {self.config.model_type}: {self.why_padded}")
        if self.why_padded and attention == "auto":
            log.warning("%s runs padded: %s", self.config.model_type, self.why_padded)

    @property
    def causal(self) -> bool:
        """Whether a token sees only what stands before it."""
        return any(getattr(module, "is_causal", False) for module in self.model.modules())

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @property
    def half_precision(self) -> bool:
        """Whether its products are in half precision."""
        return self.autocast or next(self.model.parameters()).dtype != torch.float32

    @property
    def position_limit(self) -> int:
        """The most tokens of one text that the model's positions reach."""
        return position_limit(self.config)

    def forward(self, pack: Pack, tasks: str | Sequence[str]) -> tuple[Tensor, dict[str, Routing]]:
        """Hidden states (T, D) of the stream and what every router decided, both in the stream's order.

        `tasks`: one for all, or one per text in the caller's order; none at all is a pass of the bare backbone, without any expert.
        Raises ValueError for another number, and for a batch of tasks of which only some attend both ways.
        """
        pack = pack.to(self.device)
        if not isinstance(tasks, str) and len(tasks) not in (0, len(pack.order)):
            raise ValueError(f"{len(tasks)} tasks for {len(pack.order)} texts: give one name, one per text, or none")
        sorted_tasks = [tasks[i] for i in pack.order] if tasks and not isinstance(tasks, str) else tasks
        run = self._run_packed if self.packed else self._run_padded
        return run(pack, sorted_tasks, self._both_ways(tasks))

    def states(self, pack: Pack, tasks: str | Sequence[str]) -> Tensor:
        """The hidden states (T, D) of `forward` alone: by the graph of this pass, where one was exported and nothing has changed since.

        A graph is for inference: not in training mode, nor where a gradient is asked for. One that is stale is dropped.
        """
        name = tasks if isinstance(tasks, str) else tasks[0] if len(set(tasks)) == 1 else ""
        graph = self.graphs.get(name)
        if graph is not None and graph.takes(pack) and not (self.training or torch.is_grad_enabled()):
            if graph.fresh:
                return graph(pack)
            log.warning("the model has changed: its graph for %s is dropped", name)
            self.graphs.clear()
        return self.forward(pack, tasks)[0]

    def train(self, mode: bool = True) -> Backbone:
        """As every module's; what trains drops its graphs, since not every optimiser counts its steps in the weights."""
        if mode:
            self.graphs.clear()
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "graphs": {}}  # a copy has none: they are of this one's weights

    def _apply(self, fn: Any, recurse: bool = True) -> Backbone:
        self.graphs.clear()  # moved to another device or type
        return super()._apply(fn, recurse)  # type: ignore[no-any-return, no-untyped-call]

    @torch.no_grad()
    def attentions(self, pack: Pack, tasks: str | Sequence[str]) -> tuple[Tensor, list[Tensor]]:
        """Hidden states (T, D) of the stream and every layer's attention weights (S, H, L, L), its texts in the stream's order.

        Packed attention gives no weights, so this runs eager and padded, whatever the backbone usually does. Raises ValueError for a
        model that gives none either way. Not for a backbone that other threads use.
        """
        pack, model = pack.to(self.device), self.model
        hub_model: Any = model
        sorted_tasks = [tasks[i] for i in pack.order] if tasks and not isinstance(tasks, str) else tasks
        inputs, types_SL, mask_SL = self._padded(pack, self._both_ways(tasks))
        before = hub_model.config._attn_implementation
        try:
            hub_model.set_attn_implementation("eager")
            with running(Batch(sorted_tasks, pack.lengths, mask_SL)):
                out = self._call({**inputs, "output_attentions": True}, types_SL)
        finally:
            hub_model.set_attn_implementation(before)
        if not out.attentions or any(weight_SHLL is None for weight_SHLL in out.attentions):
            raise ValueError(f"{self.config.model_type} gives no attention weights")
        return out.last_hidden_state[mask_SL], list(out.attentions)

    def pool(self, hidden_TD: Tensor, pack: Pack, part: int | None = None, pooling: str | None = None) -> Tensor:
        """(S, D) in fp32, in the caller's order. `part` 1 or 2 pools only that part of a pair, by its mean; `pooling` instead of ours."""
        pooling = pooling or self.pooling
        if part is None and pooling == "mean" and len(pack.lengths) == 1:  # one query: each operation counts
            return hidden_TD.float().mean(0, keepdim=True)
        own = part is None and pooling == "text"
        part = 1 if own else part
        lengths = torch.tensor(pack.lengths, device=hidden_TD.device)
        ends = lengths.cumsum(0)
        if part is None and pooling == "first":
            pooled = hidden_TD[ends - lengths].float()
        elif part is None and pooling == "last":
            pooled = hidden_TD[ends - 1].float()
        else:
            segment_T = torch.repeat_interleave(torch.arange(len(pack.lengths), device=hidden_TD.device), lengths, output_size=pack.tokens)
            weight_T = torch.ones_like(segment_T) if part is None else (pack.part_T.to(hidden_TD.device) == part)
            zeros = hidden_TD.new_zeros(len(pack.lengths), hidden_TD.shape[-1], dtype=torch.float32)
            count = zeros.new_zeros(len(pack.lengths)).index_add(0, segment_T, weight_T.float())
            if own:  # an empty text has no tokens of its own: all that stands around it, then
                weight_T = weight_T | (count == 0)[segment_T]
                count = zeros.new_zeros(len(pack.lengths)).index_add(0, segment_T, weight_T.float())
            total = zeros.index_add(0, segment_T, hidden_TD.float() * weight_T[:, None])
            pooled = total / count.clamp_min(1)[:, None]
        return pooled[pack.place_S.to(hidden_TD.device)]

    def gradient_checkpointing(self, on: bool) -> None:
        """Trades a second forward pass for memory; never re-entrant, and each recomputation sees the batch of its own pass."""
        word = "activation" if hasattr(self.model, "activation_checkpointing_enable") else "gradient"  # renamed after transformers 5.5
        if on:
            getattr(self.model, f"{word}_checkpointing_enable")({"use_reentrant": False, "context_fn": checkpoint_contexts})
        else:
            getattr(self.model, f"{word}_checkpointing_disable")()

    def _both_ways(self, tasks: str | Sequence[str]) -> bool:
        found = {name.partition("/")[0] in self.both_ways for name in ((tasks,) if isinstance(tasks, str) else tasks)}
        if len(found) > 1:
            raise ValueError(f"one batch of {sorted(set(tasks))}: only {sorted(self.both_ways)} attend both ways; run them apart")
        return True in found

    def _run_packed(self, pack: Pack, tasks: str | Sequence[str], both_ways: bool = False) -> tuple[Tensor, dict[str, Routing]]:
        lengths = torch.tensor(pack.lengths, device=self.device)
        ends = torch.zeros(len(lengths) + 1, dtype=torch.int32, device=self.device)
        ends[1:] = lengths.cumsum(0)
        start_T = torch.repeat_interleave(ends[:-1].long(), lengths, output_size=pack.tokens)
        position_T = torch.arange(pack.tokens, device=self.device) - start_T
        inputs: dict[str, Any] = {"input_ids": pack.input_ids_T[None], "position_ids": position_T[None] + self.offset}
        inputs |= {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends, "max_length_q": pack.lengths[0], "max_length_k": pack.lengths[0]}
        inputs |= {"is_causal": False} if both_ways else {}
        with running(Batch(tasks, pack.lengths, device=self.device)) as batch:
            hidden_TD = self._call(inputs, pack.type_ids_T[None]).last_hidden_state[0]
        return hidden_TD, batch.routings

    def _run_padded(self, pack: Pack, tasks: str | Sequence[str], both_ways: bool = False) -> tuple[Tensor, dict[str, Routing]]:
        inputs, types_SL, mask_SL = self._padded(pack, both_ways)
        with running(Batch(tasks, pack.lengths, mask_SL)) as batch:
            hidden_SLD = self._call(inputs, types_SL).last_hidden_state
        return hidden_SLD[mask_SL], batch.tables | batch.routings

    def _padded(self, pack: Pack, both_ways: bool) -> tuple[dict[str, Any], Tensor, Tensor]:
        """The model's inputs, token types and what is no padding, each text a row."""
        pad = self.config.pad_token_id if self.config.pad_token_id is not None else 0
        sizes = list(pack.lengths)
        ids_SL = pad_sequence(list(torch.split(pack.input_ids_T, sizes)), batch_first=True, padding_value=pad)
        types_SL = pad_sequence(list(torch.split(pack.type_ids_T, sizes)), batch_first=True)
        mask_SL = torch.arange(ids_SL.shape[1], device=self.device)[None] < torch.tensor(sizes, device=self.device)[:, None]
        inputs: dict[str, Any] = {"input_ids": ids_SL, "attention_mask": mask_SL.long()}
        if both_ways:  # a mask of four dimensions is taken as it is
            floor = torch.finfo(torch.float32).min
            seen_S1LL = mask_SL[:, None, None].expand(-1, 1, mask_SL.shape[1], -1)
            inputs |= {
                "attention_mask": torch.zeros(seen_S1LL.shape, device=self.device).masked_fill(~seen_S1LL, floor),
                "is_causal": False,
            }
        return inputs, types_SL, mask_SL

    def _call(self, inputs: dict[str, Any], types: Tensor) -> Any:
        if self.types:
            inputs["token_type_ids"] = types
        if hasattr(self.config, "use_cache"):
            inputs["use_cache"] = False
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            return self.model(**inputs)

    @torch.no_grad()
    def _prove_packed(self) -> str:
        """Empty where packed and padded hidden states agree on mixed lengths; else why they are not to be trusted."""
        model: Any = self.model
        if not getattr(model, "_supports_attention_backend", False) or "position_ids" not in self._accepts:
            return "the model does not take an attention function"
        training = model.training
        window = getattr(self.config.get_text_config(), "sliding_window", None)
        longest = min(3 * int(window or 12) + 5, 600, int(getattr(self.config, "max_position_embeddings", 600)) - 4)
        draw = torch.Generator().manual_seed(0)
        lengths = sorted((longest, 7, 7, max(longest // 2, 3), 1), reverse=True)
        ids_T = torch.randint(5, max(int(self.config.get_text_config().vocab_size) - 1, 6), (sum(lengths),), generator=draw)
        zeros = torch.zeros_like(ids_T)
        pack = Pack(ids_T, zeros, zeros, tuple(lengths), tuple(range(len(lengths))), 0).to(self.device)
        model.eval()
        try:
            directions = (False, True) if self.both_ways else (False,)
            model.set_attn_implementation(self._unpacked)
            want = torch.stack([self._run_padded(pack, "proof", both)[0] for both in directions])
            packed.register()
            model.set_attn_implementation(packed.NAME)
            got = torch.stack([self._run_packed(pack, "proof", both)[0] for both in directions])
            exact = want.dtype == torch.float32 and not self.autocast
            got, want = got.float(), want.float()
            off = float((got - want).abs().max() / want.abs().max().clamp_min(1e-6)) if exact else float((got - want).norm() / want.norm())
            why = "" if off <= (TOLERANCE if exact else HALF_TOLERANCE) else f"packed differs from padded by {off:.1e}"
        except Exception as error:  # whatever a model's code does with a stream that it cannot take
            why = f"packed attention failed: {(str(error).splitlines() or [type(error).__name__])[0]}"
        if why:
            model.set_attn_implementation(self._unpacked)
        model.train(training)
        return why


def _own_config(model: nn.Module) -> Any:
    """Gives the model a config of its own: attention is chosen in it, and another model may hold the same object."""
    shared: Any = model.config
    own = copy.deepcopy(shared)
    for module in model.modules():
        if getattr(module, "config", None) is shared:
            module.config = own
    return own
