"""A tiny random model, its tokenizer and a small dataset, for `--dry-run`: everything of a script runs, on a CPU, in seconds."""

from __future__ import annotations

import json
import random
import string
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

WORDS = [a + b for a in "bdfgklmnprst" for b in "aeiou"]


def backbone(folder: Path) -> Path:
    """A BERT of two layers with a tokenizer of whole words and letters, as transformers saves them."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS, *string.ascii_lowercase, *(f"##{letter}" for letter in string.ascii_lowercase)]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "max_position_embeddings": 512}
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=len(pieces), **size), add_pooling_layer=False).save_pretrained(folder)
    return folder


def dataset(folder: Path) -> Path:
    """A BEIR folder: 40 documents of six words, and queries of three of them, in the three splits."""
    draw = random.Random(7)
    texts = [draw.sample(WORDS, 6) for _ in range(40)]
    names = [f"{split}{i}" for split, count in (("train", 24), ("dev", 8), ("test", 8)) for i in range(count)]
    (folder / "qrels").mkdir(parents=True)
    corpus = [{"_id": f"d{i}", "title": "", "text": " ".join(text)} for i, text in enumerate(texts)]
    queries = [{"_id": name, "text": " ".join(draw.sample(texts[i], 3))} for i, name in enumerate(names)]
    for name, rows in (("corpus", corpus), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for split in ("train", "dev", "test"):
        lines = [f"{name}\td{i}\t1\n" for i, name in enumerate(names) if name.startswith(split)]
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines), encoding="utf-8")
    return folder
