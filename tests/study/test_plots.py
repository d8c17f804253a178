"""Pictures are well-formed and put their marks where the numbers say."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from twofold.study.plots import Bar, Dot, forest, heat, lines, points

SVG = "{http://www.w3.org/2000/svg}"


def marks(svg: str, tag: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(svg).iter(f"{SVG}{tag}"))


def test_intervals_lie_in_order_around_zero() -> None:
    svg = forest([Bar("a & b", 0.02, 0.01, 0.03, "a: <1>", "g"), Bar("c", -0.02, -0.03, -0.01, "c", "g")], "gain", 0.01)
    first, second = (float(each.get("cx") or 0) for each in marks(svg, "circle")[:2])
    zero = float(next(each for each in marks(svg, "line") if each.get("class") == "zero").get("x1") or 0)
    assert second < zero < first and first - zero == pytest.approx(zero - second, abs=0.2)
    assert {each.text for each in marks(svg, "title")} == {"a tie: within ±0.01", "a: <1>", "c"}
    assert "a & b" in [each.text for each in marks(svg, "text")]


def test_points_of_one_label_share_a_line() -> None:
    svg = points([Dot("a", 0.5, "s0", "x"), Dot("a", 0.6, "s1", "y"), Dot("b", 0.55, "s2", "x")], "score")
    dots = [each for each in marks(svg, "circle") if each.find(f"{SVG}title") is None and each.get("fill-opacity")]
    heights = [each.get("cy") for each in dots]
    assert heights[0] == heights[1] != heights[2] and float(dots[0].get("cx") or 0) < float(dots[2].get("cx") or 0) < float(
        dots[1].get("cx") or 0
    )


def test_equal_values_do_not_divide_by_zero() -> None:
    assert marks(points([Dot("a", 0.5, "")], "score"), "circle") and marks(forest([Bar("a", 0, 0, 0, "")], "gain"), "circle")
    assert marks(lines({"a": [(1.0, 0.5, "")]}, "x", "y"), "circle") and marks(heat([("r", "c", 1.0)], 0, 0, "w"), "rect")


def test_lines_are_equally_spaced_in_powers() -> None:
    svg = lines({"a": [(1e-3, 0.1, ""), (1e-2, 0.2, ""), (1e-1, 0.3, "")]}, "rate", "score")
    xs = [float(each.get("cx") or 0) for each in marks(svg, "circle")]
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.2)


def test_heat_is_darker_where_there_is_more() -> None:
    svg = heat([("r", "a", 0.0), ("r", "b", 1.0)], 0.0, 1.0, "weight")
    fills = [each.get("fill") for each in marks(svg, "rect")]
    assert fills == ["rgb(245,247,250)", "rgb(0,114,178)"]
