"""Files read without an index: cut and ordered as a search would."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from tests.tiny import bert_tokenizer
from twofold.errors import DataError
from twofold.search.files import file_hits
from twofold.search.pipeline import Callables
from twofold.search.reader import Reader


def reader(room: int = 16) -> Reader:
    def score(pairs: Sequence[tuple[str, str]]) -> Any:
        return np.array([len(set(query.split()) & set(text.split())) for query, text in pairs], dtype=np.float32)

    blank = cast(Any, None)
    return Reader(Callables(blank, blank, score), 4, "", {}, room, bert_tokenizer())


def test_passages_of_all_files_come_best_first(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text(
        "# heading\n\nbc df gh. kl mn pr. st vw bc. df gh kl. mn pr st.\n\n# more\n\nzz yy xx.\n", encoding="utf-8"
    )
    (tmp_path / "b.txt").write_text("nothing of it", encoding="utf-8")
    found = file_hits([tmp_path / "a.md", tmp_path / "b.txt"], "zz yy", reader())
    assert "zz yy xx" in found[0].text
    assert [hit.rank for hit in found] == list(range(1, len(found) + 1))
    assert [hit.rerank_score for hit in found] == sorted((hit.rerank_score or 0.0 for hit in found), reverse=True)
    assert {hit.source.partition(":")[0] for hit in found} == {"a.md", "b.txt"}
    whole = (tmp_path / "a.md").read_text() + (tmp_path / "b.txt").read_text()
    assert all(hit.text in whole for hit in found)


@pytest.mark.parametrize("content", [b"", b"  \n", b"\xff\xfe\xfa"])
def test_a_file_without_text_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.txt"):
        file_hits([tmp_path / "a.txt"], "q", reader())
    with pytest.raises(DataError, match=r"missing\.txt"):
        file_hits([tmp_path / "missing.txt"], "q", reader())
