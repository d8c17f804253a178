"""What a layer knows about a pass: segments, tasks, records, and the batch of the thread."""

from __future__ import annotations

import pytest
import torch

from twofold.core.routing import Batch, Decision, Roster, checkpoint_contexts, current, generator, running

ROSTER = Roster(("a", "b", "c"), {"retrieve": ("b", "a"), "rerank": ("b", "c"), "nothing": ()})


def padded(x_TD: torch.Tensor, lengths: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """The same segments as rows, and the mask of their real tokens; the rest is noise that nobody may read."""
    rows = torch.full((len(lengths), max(lengths), x_TD.shape[-1]), 1e3)
    mask = torch.zeros(len(lengths), max(lengths), dtype=torch.bool)
    for i, part in enumerate(x_TD.split(list(lengths))):
        rows[i, : len(part)], mask[i, : len(part)] = part, True
    return rows, mask


def test_pooling_is_the_mean_of_each_segment_in_both_layouts() -> None:
    lengths = (5, 2, 1)
    x_TD = torch.randn(8, 4)
    rows, mask = padded(x_TD, lengths)
    want = torch.stack([part.mean(0) for part in x_TD.split(list(lengths))])
    torch.testing.assert_close(Batch("t", lengths).pool(x_TD[None]), want)
    torch.testing.assert_close(Batch("t", lengths, mask).pool(rows), want)


def test_spreading_repeats_a_segments_weight_over_its_tokens() -> None:
    weight_SE = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    packed = Batch("t", (2, 1)).spread(weight_SE, "sequence")
    assert packed.tolist() == [[[1, 2], [1, 2], [3, 4]]]
    assert Batch("t", (2, 1), torch.ones(2, 2, dtype=torch.bool)).spread(weight_SE, "sequence").shape == (2, 1, 2)
    assert Batch("t", (2, 1)).spread(weight_SE, "token") is weight_SE


def test_tasks_are_one_for_all_or_one_per_segment() -> None:
    assert Batch("retrieve", (1, 2)).tasks == ("retrieve",)
    assert Batch(["retrieve", "retrieve"], (1, 2)).tasks == ("retrieve",)
    assert Batch(["retrieve", "rerank"], (1, 2)).tasks == ("retrieve", "rerank")
    with pytest.raises(ValueError, match="2 tasks for 3 segments"):
        Batch(["retrieve", "rerank"], (1, 2, 3))
    assert Batch((), (1, 2)).tasks == ()


def test_a_decision_is_made_once_per_key_and_recorded_for_every_layer() -> None:
    batch, made = Batch("retrieve", (2, 1)), []

    def decide() -> tuple[torch.Tensor, str]:
        made.append(1)
        return torch.tensor([[1.0, 0.5], [0.2, 0.3]]), "sequence"

    for layer in ("first", "second"):
        assert batch.route("block", layer, ("a", "b"), decide).shape == (1, 3, 2)
    assert len(made) == 1
    assert list(batch.routings) == ["first", "second"]
    record = batch.routings["second"]
    assert (record.layer, record.experts, record.tasks, record.level) == ("second", ("a", "b"), ("retrieve",), "sequence")
    assert record.weight.shape == (2, 2)


def test_what_is_made_once_is_known_to_later_layers_and_to_a_replay() -> None:
    batch, made = Batch("retrieve", (1,)), []
    assert [batch.once("donor", lambda: made.append(1) or 7) for _ in range(2)] == [7, 7]
    assert batch.replay().once("donor", lambda: made.append(1) or 8) == 7
    assert made == [1]


@pytest.mark.parametrize("padding", [False, True])
def test_a_record_holds_real_tokens_in_the_order_of_the_stream(padding: bool) -> None:
    """Losses on it must not count padding."""
    lengths, weight_TE = (3, 1), torch.rand(4, 2)
    rows, mask = padded(weight_TE, lengths)
    batch = Batch("retrieve", lengths, mask) if padding else Batch("retrieve", lengths)
    given = rows if padding else weight_TE[None]
    assert batch.route("layer", "layer", ("a", "b"), lambda: Decision(given, "token", given * 2), z=given * 3) is given
    record = batch.routings["layer"]
    assert record.score is not None and record.z is not None
    for kept, factor in ((record.weight, 1), (record.score, 2), (record.z, 3)):
        assert torch.equal(kept, weight_TE[None] * factor)
    with torch.no_grad():
        batch.route("other", "other", ("a", "b"), lambda: (torch.ones(1, 2), "task"), z=given)
    record = batch.routings["other"]
    assert (record.weight.shape, record.score, record.z) == ((1, 2), None, None)


def test_a_replay_knows_what_was_decided_before_and_forgets_what_comes_later() -> None:
    batch = Batch("retrieve", (1,))
    batch.route("early", "x", ("a",), lambda: (torch.ones(1, 1), "task"))
    twin = batch.replay()
    batch.route("late", "y", ("a",), lambda: (torch.ones(1, 1), "task"))
    assert twin.route("early", "x", ("a",), lambda: (torch.zeros(1, 1), "task")).item() == 1
    assert twin.route("late", "y", ("a",), lambda: (torch.zeros(1, 1), "task")).item() == 0
    assert batch.routings["y"].weight.item() == 1


def test_there_is_a_current_batch_only_inside_a_pass() -> None:
    with pytest.raises(RuntimeError, match="outside a pass"):
        current()
    outer, inner = Batch("retrieve", (1,)), Batch("rerank", (1,))
    with running(outer):
        with pytest.raises(KeyError), running(inner):
            assert current() is inner
            raise KeyError
        assert current() is outer
    with pytest.raises(RuntimeError):
        current()


def test_the_recomputation_runs_with_the_batch_of_its_own_pass() -> None:
    with running(Batch("retrieve", (1,))):
        _, again = checkpoint_contexts()
    with running(Batch("rerank", (1,))), again:
        assert current().tasks == ("retrieve",)
    nothing, also_nothing = checkpoint_contexts()
    with nothing, also_nothing, pytest.raises(RuntimeError):
        current()


def test_a_roster_shows_the_experts_of_the_tasks_in_its_own_order() -> None:
    assert ROSTER.visible(("retrieve",)) == ("a", "b")
    assert ROSTER.visible(("rerank", "retrieve")) == ("a", "b", "c")
    assert ROSTER.visible(("nothing",)) == ()
    with pytest.raises(KeyError, match="unknown task 'clasify'.*rerank"):
        ROSTER.visible(("clasify",))


def test_a_roster_masks_only_where_tasks_differ() -> None:
    assert ROSTER.mask(Batch("retrieve", (1, 2)), ("a", "b"), "sequence") is None
    mixed = Batch(["retrieve", "rerank"], (1, 2))
    assert ROSTER.mask(mixed, ("a", "b", "c"), "sequence").tolist() == [[True, True, False], [False, True, True]]
    assert ROSTER.mask(mixed, ("a", "b", "c"), "token").shape == (1, 3, 3)


@pytest.mark.parametrize(("experts", "sees"), [(("a",), {"t": ("a", "d")}), (("a", "a"), {}), (("a", "b"), {"t": ("b", "b")})])
def test_a_roster_refuses_unknown_and_repeated_experts(experts: tuple[str, ...], sees: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(ValueError, match="each once"):
        Roster(experts, sees)


def test_random_starts_depend_on_seed_and_names_only() -> None:
    def draw(seed: int, *names: str) -> list[float]:
        return torch.rand(4, generator=generator(seed, *names)).tolist()

    torch.manual_seed(1)
    first = draw(0, "layer", "a")
    torch.manual_seed(2)
    assert first == draw(0, "layer", "a")
    assert (
        len({tuple(draw(*key)) for key in [(0, "layer", "a"), (1, "layer", "a"), (0, "layer", "b"), (0, "other", "a"), (-1, "layer", "a")]})
        == 5
    )
