"""Answers: the loss by hand, spans planted in the logits, and places that are the passage's own characters."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.tasks.conftest import MakeModel
from tests.tiny import bert_tokenizer
from tests.tiny_trial import tiny_examples
from twofold.backbone.tokens import TextTokens
from twofold.model.unified import UnifiedModel
from twofold.records import Example
from twofold.tasks import StepContext
from twofold.tasks.answer import AnswerTask, Span, best_spans, build, loss_of, passage_places, tokens_of, wanted_of

QUESTION, PASSAGE = "bd cf", "bcd fgh klm 🙂 prs tvw"


def reader(model: UnifiedModel) -> AnswerTask:
    task = model.tasks["answer"]
    assert isinstance(task, AnswerTask)
    return task


def tokens(prompts: dict[str, str] | None = None) -> TextTokens:
    return TextTokens(bert_tokenizer(), max_length=24, pair_length=40, query_length=10, prompts=prompts or {})


@pytest.mark.parametrize("prompts", [{}, {"pair_query": "bc ", "pair_document": "fg hk "}])
@pytest.mark.parametrize("item", [(QUESTION, PASSAGE), (QUESTION, "a title", PASSAGE), (QUESTION, "", f"  {PASSAGE} ")])
def test_places_are_those_of_the_passage_as_it_was_given(prompts: dict[str, str], item: tuple[str, ...]) -> None:
    own = tokens(prompts)
    passages = build(width=8).pack(own, [item])  # type: ignore[list-item]
    (places,) = passages.places
    ids = passages.pack.input_ids_T[passages.pack.part_T == 2]
    assert len(places) == len(ids)
    assert passages.texts == (item[-1],)
    whole = [(place, token) for place, token in zip(places, ids.tolist(), strict=True) if place[1] > place[0]]
    assert "".join(item[-1][start:end] for (start, end), _ in whole) == PASSAGE.replace(" ", "")
    for (start, end), token in whole:
        alone = own.tokenizer(item[-1][start:end], add_special_tokens=False)["input_ids"]
        assert token in alone or own.tokenizer.convert_ids_to_tokens(token).startswith("##")


def test_a_passage_that_is_cut_has_places_for_what_is_left() -> None:
    own = tokens()
    passages = build(width=8).pack(own, [(QUESTION, " ".join(["bcd"] * 100)), (QUESTION, "bcd")])
    assert [len(places) for places in passages.places] == [int((passages.pack.part_T[:40] == 2).sum()), len(own.places(["bcd"])[0])]
    assert passages.truncated == 1


def logits(n: int, length: int, planted: dict[tuple[int, int], float], nowhere: float = 0.0) -> Tensor:
    """(1 + length, 2): 0 for all `n` tokens but the planted ones; -inf behind them."""
    out = torch.full((1 + length, 2), float("-inf"))
    out[1 : 1 + n] = 0.0
    out[0] = nowhere / 2
    for (token, end), value in planted.items():
        out[1 + token, end] = value
    return out


def words(text: str) -> list[tuple[int, int]]:
    ends = list(itertools.accumulate(len(word) + 1 for word in text.split(" ")))
    return [(end - 1 - len(word), end - 1) for word, end in zip(text.split(" "), ends, strict=True)]


def test_a_planted_span_is_found_with_its_score() -> None:
    text = "un été à Zürich 🙂 passé"
    spans = best_spans(logits(6, 10, {(1, 0): 5.0, (3, 1): 4.0}, nowhere=2.0), words(text), text, 30, 3)
    assert spans[0] == Span(3, 15, 7.0)
    assert text[spans[0].start : spans[0].end] == "été à Zürich"


def test_best_spans_do_not_overlap_and_come_best_first() -> None:
    text = "a b c d e f"
    spans = best_spans(logits(6, 6, {(0, 0): 3.0, (1, 1): 3.0, (4, 0): 2.0, (4, 1): 2.0}), words(text), text, 30, 3)
    assert [text[one.start : one.end] for one in spans[:2]] == ["a b", "e"]
    assert [one.score for one in spans] == sorted((one.score for one in spans), reverse=True)
    assert all(a.end <= b.start or b.end <= a.start for a, b in itertools.combinations(spans, 2))


def test_a_span_is_not_longer_than_allowed_nor_backwards_nor_in_the_title() -> None:
    text = "a b c d e f"
    far = logits(6, 6, {(0, 0): 9.0, (5, 1): 9.0, (2, 0): 1.0, (3, 1): 1.0})
    assert best_spans(far, words(text), text, 6, 1)[0][:2] == (0, 11)
    assert best_spans(far, words(text), text, 3, 1)[0].score == 9.0
    backwards = logits(6, 6, {(4, 0): 9.0, (1, 1): 9.0})
    assert best_spans(backwards, words(text), text, 6, 1)[0].score == 9.0
    titled = [(0, 0), (0, 0), *words(text)[2:]]
    assert best_spans(logits(6, 6, {(0, 0): 9.0, (1, 1): 9.0}), titled, text, 6, 1)[0].start >= 4


def test_spaces_around_a_span_are_no_part_of_it_and_a_blank_passage_answers_nothing() -> None:
    text = "a  b "
    assert best_spans(logits(2, 2, {(1, 0): 3.0, (1, 1): 3.0}), [(0, 1), (1, 5)], text, 9, 1)[0][:2] == (3, 4)
    assert best_spans(logits(1, 2, {}), [(0, 2)], "  ", 9, 1) == []
    assert best_spans(logits(0, 2, {}), [], "", 9, 1) == []


def test_the_loss_is_of_all_places_together_or_of_nowhere() -> None:
    draw = torch.Generator().manual_seed(0)
    logit_L2 = torch.randn(5, 2, generator=draw)
    first, last = logit_L2.log_softmax(0).unbind(-1)
    both = math.exp(first[1] + last[2]) + math.exp(first[4] + last[4])
    assert float(loss_of(logit_L2, [(0, 1), (3, 3)])) == pytest.approx(-math.log(both), abs=1e-5)
    assert float(loss_of(logit_L2, [])) == pytest.approx(-float(first[0] + last[0]), abs=1e-5)
    assert float(loss_of(logit_L2, None)) == 0


def test_characters_become_tokens() -> None:
    places = [(0, 0), (0, 3), (4, 7), (7, 9), (10, 12)]
    assert tokens_of(places, [(4, 9), (0, 3), (5, 6)]) == [(2, 3), (1, 1), (2, 2)]
    assert tokens_of(places, []) == []
    assert tokens_of(places, [(11, 15)]) is None, "cut off: it teaches nothing"
    assert tokens_of(places, [(11, 15), (0, 3)]) == [(1, 1)]


def test_what_teaches_and_what_does_not() -> None:
    example = Example("q", "q", ("a", "b", "c", "d"), ("x", "x", "y", "y"), (1.0, 0.0, 1.0, 0.0), answers=(((0, 1),), ((0, 1),), (), ()))
    assert wanted_of(example) == [((0, 1),), None, None, ()]
    with pytest.raises(ValueError, match=r"q: nothing says where its answers stand"):
        wanted_of(replace(example, answers=None))


def test_places_of_a_streams_passages() -> None:
    pack = tokens().pairs([("bc", "bcd"), ("bc", "bcd fgh klm"), ("bc", "")])
    rows, columns = passage_places(pack)
    counts = [int(part.sum()) for part in (pack.part_T == 2).split(list(pack.lengths))]
    assert rows.tolist() == [row for row, count in enumerate(counts) for _ in range(count)]
    assert columns.tolist() == [column for count in counts for column in range(count)]


def test_it_learns_to_find_a_planted_word_and_to_find_nothing(make_model: MakeModel) -> None:
    """The positive's answer is one and the same word wherever it stands; the other documents do not hold it."""
    model, word = make_model(answer={"best": 1}), "zz"
    task = reader(model)
    examples = []
    for i, one in enumerate(tiny_examples(12, negatives=1)):
        before = one.documents[0].split()[: i % 4]
        text = " ".join([*before, word, *one.documents[0].split()[:3]])
        at = len(" ".join(before)) + bool(before)
        examples.append(replace(one, documents=(text, one.documents[1]), answers=(((at, at + 2),), ())))
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=2e-2)
    losses = []
    for _ in range(30):
        losses.append(task.step(examples[:8], StepContext(model.encoder, lambda loss: loss.backward())).loss)
        optimiser.step()
        optimiser.zero_grad()
    assert losses[-1] < losses[0] / 4
    unseen = examples[8:]
    right = model.predict("answer", [(one.query, one.documents[0]) for one in unseen])
    wrong = model.predict("answer", [(one.query, one.documents[1]) for one in unseen])
    texts = [one.documents[0][spans[0].start : spans[0].end] for one, spans in zip(unseen, right, strict=True)]
    assert texts.count(word) >= 3
    assert sum(spans[0].score for spans in right) > sum(spans[0].score for spans in wrong)


def test_a_batch_is_answered_as_each_alone(make_model: MakeModel) -> None:
    model = make_model(answer={})
    items = [(QUESTION, PASSAGE), ("bd", "", "klm"), (QUESTION, "a title", PASSAGE * 2)]
    together, alone = model.predict("answer", items, token_budget=16), [model.predict("answer", [item])[0] for item in items]
    for one, other in zip(together, alone, strict=True):
        assert [span[:2] for span in one] == [span[:2] for span in other]
        assert [span.score for span in one] == pytest.approx([span.score for span in other], abs=1e-4)


def test_saved_and_opened_it_gives_the_same(make_model: MakeModel, tmp_path: Path) -> None:
    from twofold.model import folder

    model = make_model(answer={"longest": 5, "threshold": 1.5, "rerank_share": 0.1})
    folder.save(model.eval(), tmp_path / "model")
    opened = folder.load(tmp_path / "model")
    assert opened.predict("answer", [(QUESTION, PASSAGE)]) == model.predict("answer", [(QUESTION, PASSAGE)])
    assert (reader(opened).longest, reader(opened).threshold, reader(opened).rerank_share) == (5, 1.5, 0.1)


@pytest.mark.parametrize("wrong", [{"longest": 0}, {"best": 0}])
def test_numbers_below_one_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="use 1 or more"):
        build(width=8, **wrong)  # type: ignore[arg-type]
