"""A task's pass as one compiled graph (OpenVINO), for a single short text: there PyTorch's dispatch takes longer than the products.

A graph is a copy with memory of its own, and OpenVINO takes some for itself (how much: docs/log.md). So it is made for tasks whose latency
matters, queries above all. It takes one text of up to `TOKENS` tokens; everything else goes through the packed stream.

Shapes: as in `backbone`, one segment of L tokens, so T = L.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import operator
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from twofold.backbone.packed import Pack, make_pack
from twofold.backbone.traced import trace
from twofold.core.inject import mixtures
from twofold.errors import ConfigError

if TYPE_CHECKING:
    from twofold.backbone.backbone import Backbone

log = logging.getLogger(__name__)

TOKENS = 128
"""Longer texts are left to the packed stream."""
PROVED = (1, 2, 7, 15, 16, 17, 33, 64, TOKENS)
"""Lengths at which a graph is compared with the plain pass: vector kernels change at powers of two."""
TOLERANCE = 1e-4
"""Largest difference of hidden states, relative to their size, that counts as equal in fp32."""
COSINE = 0.999
"""Least cosine of a text's hidden states in bf16."""
GAIN = 1.2
"""Where a graph must be worth its memory, it is so many times faster."""
TRIED, ROUNDS = 16, 9
"""The length of the text that is timed, and how often."""
SETTINGS = {"NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY", "SNIPPETS_MODE": "DISABLE"}
"""Snippets, OpenVINO's compiler of small fused kernels, gives wrong attention at 16 and more tokens where lengths vary (2026.4)."""


class Graph:
    """Hidden states of one text by a compiled graph, as the weights were when it was made. Threads take turns.

    It has as many processor threads as PyTorch had then.
    """

    def __init__(self, backbone: Backbone, task: str) -> None:
        self.snapshot = Snapshot(backbone.model)
        scripted, example = trace(backbone, task)
        precision = "bf16" if backbone.half_precision else "f32"
        settings = {**SETTINGS, "INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        self._request = _compiled(scripted, example, settings).create_infer_request()
        self._types, self._turn = len(example) > 1, threading.Lock()

    @property
    def fresh(self) -> bool:
        """Whether the weights are still those that the graph has; a matter of a tenth of a millisecond."""
        return self.snapshot.holds()

    def takes(self, pack: Pack) -> bool:
        """Whether this is one text, and short."""
        return len(pack.lengths) == 1 and pack.tokens <= TOKENS

    def __call__(self, pack: Pack) -> Tensor:
        """(T, D) in fp32."""
        inputs = [pack.input_ids_T, pack.type_ids_T] if self._types else [pack.input_ids_T]
        with self._turn:
            (hidden_1LD,) = self._request.infer([each[None].numpy() for each in inputs], share_inputs=True, share_outputs=True).values()
            return torch.from_numpy(hidden_1LD[0].copy())


class Snapshot:
    """Which modules and tensors a model is made of, and which version each tensor has: an optimiser's step, loading, folding and a further
    expert all show in it."""

    def __init__(self, model: nn.Module) -> None:
        slots: list[tuple[dict[str, Any], str]] = []
        for module in model.modules():
            slots += [(held, name) for held in (module._parameters, module._buffers, module._modules) for name in held]
        slots += [(vars(layer), name) for layer in mixtures(model) for name in ("folded", "roster")]
        self._held, self._names = [held for held, _ in slots], [name for _, name in slots]
        self._values = [held[name] for held, name in slots]
        self._tensors = [value for value in self._values if isinstance(value, Tensor) and not value.is_inference()]
        self._first = next(model.parameters())
        self._versions = self._state()

    def holds(self) -> bool:
        """Whether all of it is as it was."""
        same = all(map(operator.is_, map(dict.get, self._held, self._names), self._values))
        return same and self._state() == self._versions

    def _state(self) -> list[int]:
        moved = self._first.data_ptr()  # another type or device moves all of them and counts none up
        return [*map(operator.attrgetter("_version"), self._tensors), moved]


def available() -> bool:
    """Whether OpenVINO is installed."""
    return importlib.util.find_spec("openvino") is not None


def require() -> None:
    """Raises ConfigError where it is not."""
    if not available():
        raise ConfigError('the engine openvino is not installed: pip install "twofold[openvino]"')


def export(backbone: Backbone, task: str, gain: float = 0.0) -> str:
    """Gives `backbone` a graph for the passes of `task`, proved to give what the plain pass gives. Returns "" or, where it has none, why.

    With `gain` above 0 the graph stays only where it is so many times faster with one text of 16 tokens. Raises ConfigError where OpenVINO
    is not installed. Not for a backbone that other threads use.
    """
    require()
    backbone.graphs.pop(task, None)
    training = backbone.training
    backbone.eval()
    try:
        why = _why_not(backbone)
        graph = None if why else Graph(backbone, task)
        if graph is not None:
            why = _prove(graph, backbone, task) or (_slow(graph, backbone, task, gain) if gain else "")
    except Exception as error:  # whatever a model's code or a compiler does with what it does not know
        why = f"the export failed: {(str(error).splitlines() or [type(error).__name__])[0]}"
    backbone.train(training)
    if why or graph is None:
        log.warning("no graph for %s of %s: %s", task, backbone.config.model_type, why)
        return why
    backbone.graphs[task] = graph
    return ""


def _why_not(backbone: Backbone) -> str:
    if backbone.device.type != "cpu":
        return f"it is on {backbone.device}, and graphs are for the CPU"
    return "" if backbone.packed else f"it runs padded: {backbone.why_padded}"


def _compiled(scripted: Any, example: tuple[Tensor, ...], settings: dict[str, Any]) -> Any:
    """OpenVINO's compiled model of a TorchScript function of rows (1, L)."""
    _openvino()
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    frontend = FrontEndManager().load_by_framework("pytorch")
    decoder = TorchScriptPythonDecoder(scripted, example_input=example)  # has a name: the frontend does not keep it alive
    loaded = frontend.load(decoder)
    model = frontend.convert(loaded)
    model.reshape({i: [1, -1] for i in range(len(example))})
    _join_products(model)
    return _core().compile_model(model, "CPU", settings)


def _openvino() -> Any:
    """The package, without its telemetry: it reports its import and every conversion where it finds the module that does so."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


@functools.cache
def _core() -> Any:
    """One for the process. Each has a stack for signals of its own, and of two the one that goes last puts back the stack of the one that
    went first, which is no memory any more: the next signal would end the process (2026.4)."""
    return _openvino().Core()


def _join_products(model: Any) -> None:
    """Products of one tensor with several small matrices become one: the A's and the routers of layers that read the same input."""
    from openvino import opset13 as ops
    from openvino.passes import ConstantFolding, Manager

    folding = Manager()
    folding.register_pass(ConstantFolding())
    folding.run_passes(model)
    readers: dict[tuple[str, int], list[Any]] = {}
    for op in model.get_ordered_ops():
        if op.get_type_name() == "Convert" and op.input_value(0).get_element_type() == op.output(0).get_element_type():
            op.output(0).replace(op.input_value(0))
    for op in model.get_ordered_ops():
        if op.get_type_name() == "MatMul" and (op.get_transpose_a(), op.get_transpose_b()) == (False, True) and _matrix(op) is not None:
            source = op.input_value(0)
            readers.setdefault((source.get_node().get_friendly_name(), source.get_index()), []).append(op)
    for products in (found for found in readers.values() if len(found) > 1):
        matrices = [_matrix(op) for op in products]
        whole = ops.matmul(products[0].input_value(0), ops.constant(np.concatenate(matrices)), False, True)
        parts = ops.variadic_split(whole, ops.constant(-1), ops.constant([len(matrix) for matrix in matrices]))
        for i, op in enumerate(products):
            op.output(0).replace(parts.output(i))
    model.validate_nodes_and_infer_types()


def _matrix(op: Any) -> Any:
    """The constant (O, D) that a product multiplies by; None where it is no constant matrix."""
    node = op.input_value(1).get_node()
    return node.data if node.get_type_name() == "Constant" and len(node.shape) == 2 else None


def _text(backbone: Backbone, length: int) -> Pack:
    """Random tokens, the later half of the second type."""
    draw = torch.Generator().manual_seed(length)
    ids = torch.randint(5, max(int(backbone.config.get_text_config().vocab_size) - 1, 6), (length,), generator=draw).tolist()
    later = length // 2 if backbone.types else 0
    return make_pack([(ids, [0] * (length - later) + [1] * later, [1] * length)])


@torch.no_grad()
def _prove(graph: Graph, backbone: Backbone, task: str) -> str:
    """Empty where graph and plain pass agree at all lengths; else where they do not, and by how much."""
    for length in sorted({min(each, backbone.position_limit) for each in PROVED}):
        pack = _text(backbone, length)
        got_TD, want_TD = graph(pack), backbone(pack, task)[0].float()
        if not backbone.half_precision:
            off = float((got_TD - want_TD).abs().max() / want_TD.abs().max().clamp_min(1e-6))
            equal, what = off <= TOLERANCE, f"by {off:.1e}"
        else:
            cosine = float(F.cosine_similarity(got_TD.flatten(), want_TD.flatten(), 0))
            equal, what = cosine >= COSINE, f"(cosine {cosine:.4f})"
        if not equal:
            return f"it differs from the plain pass at {length} tokens {what}"
    return ""


def _slow(graph: Graph, backbone: Backbone, task: str, gain: float) -> str:
    """Empty where the graph is `gain` times faster, freshness included; the least of all rounds counts."""
    pack = _text(backbone, TRIED)
    with torch.inference_mode():
        plain = seconds(lambda: backbone(pack, task))
        by_graph = seconds(lambda: (graph.fresh, graph(pack)))
    ratio = plain / by_graph
    return "" if ratio >= gain else f"it is {ratio:.2f} times as fast here, and is worth its memory from {gain} on"


def seconds(call: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> float:
    """Time of one call, after a first one: the least of `ROUNDS`, which other programs lengthened least."""
    times = []
    for _ in range(ROUNDS + 1):
        begun = clock()
        call()
        times.append(clock() - begun)
    return min(times[1:])
