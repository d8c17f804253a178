"""The evidence of one study as tables and pictures: scores, comparisons, sweep, routing, cost, probes."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from twofold.study import plots
from twofold.study.blocks import Block, Figure, Row, Table, Text
from twofold.study.evidence import DECIDING, Evidence, Place
from twofold.study.probing import facts
from twofold.study.statistics import Effect, ties
from twofold.study.verdict import one_sided

EFFECT = ("difference", "low", "high", "p", "tie", "seeds up", "relative", "a", "b", "detectable", "queries", "seeds")
BRIEF = ("what", "decides", "rival", "data", "row", "a", "b", "difference", "low", "high", "p", "tie", "seeds up", "detectable")
INTERVALS = "95 % intervals over seeds and queries (thick: 90 %); shaded: a tie"
DIGITS = {"p": 4, "d": 2, "lr": 4, "relative": 3, "tokens per second": 0, "seconds of training": 0, "present": 3}


def blocks(evidence: Evidence, probed: Mapping[str, list[dict[str, Any]]]) -> Iterator[Block]:
    """All that a study's section shows, of what is there."""
    if not evidence.cells:
        return
    yield _about(evidence)
    elsewhere = evidence.elsewhere()
    if elsewhere is None:
        yield from _scores(evidence)
    else:
        yield Text(f"Its cells are those of {elsewhere}: scores, arms, sweep, weights and cost are shown there.")
    yield from _rivals(evidence)
    yield from _comparisons(evidence)
    if elsewhere is None:
        yield from _sweep(evidence)
        yield from _gates(evidence)
        yield _cost(evidence)
    for name, found in probed.items():
        yield from _probe(name, found)
    if missing := [each.name for each in evidence.study.probes if each.name not in probed]:
        yield Text(f"Not run yet: the probe{'s' * (len(missing) > 1)} {', '.join(missing)}.")


def _about(evidence: Evidence) -> Text:
    """What was run, and on what."""
    parts = []
    for data in evidence.study.data:
        here = evidence.of(data=data)
        tests = {name: test for content in here.values() for name, test in content["tests"].items() if "candidates" in test}
        for name, test in tests.items():
            given = test["candidates"]
            share = f"{100 * given['present']:.1f} %"
            parts.append(
                f"{data} ({name}): {test['documents']:,} documents, {test['queries']:,} test queries for dense, {given['queries']:,} of "
                f"them for rerank; BM25's candidates hold a relevant document for {share}."
            )
    config = next(iter(evidence.cells.values()))["config"]
    batch = ", ".join(f"{task} {each['batch']} × {1 + each['negatives']} texts" for task, each in config["tasks"].items())
    lengths = f"{config['backbone']['max_length']} tokens of a document, {config['backbone']['pair_length']} of a pair"
    parts.append(f"{config['optim']['steps']} steps, each of {batch}; {lengths}. {len(evidence.cells)} of {evidence.total} cells.")
    return Text(" ".join(parts))


def _scores(evidence: Evidence) -> Iterator[Block]:
    """Every arm's mean, its seeds, and what it trains."""
    rows: list[Row] = []
    seeds: list[Row] = []
    short: dict[tuple[str, str, str, str], Row] = {}
    for place in evidence.places:
        for arm in evidence.arms():
            scores = evidence.scores(place, arm)
            if scores is None:
                continue
            means = [float(each) for each in scores.mean(1)]
            spread = statistics.stdev(means) if len(means) > 1 else None
            where: Row = {"data": place.data, "backbone": place.backbone, "test": place.test, "row": place.row, "arm": arm}
            rows.append({**where, "mean": statistics.mean(means), "sd over seeds": spread, "seeds": len(means), "queries": scores.shape[1]})
            line = short.setdefault((place.data, place.backbone, place.test, arm), {key: where[key] for key in ("data", "test", "arm")})
            line[place.row] = f"{statistics.mean(means):.3f}" + ("" if spread is None else f" ± {spread:.3f}")
            line["seeds"] = max(int(line.get("seeds") or 0), len(means))
            seeds += [{**where, "seed number": i, "score": value} for i, value in enumerate(means)]
    columns = [*dict.fromkeys(key for line in short.values() for key in line if key != "seeds"), "seeds"]
    brief = [{key: line.get(key) for key in columns} for line in short.values()]
    yield Table("means", "nDCG@10 (accuracy for labels): mean over seeds and queries ± standard deviation over seeds", brief)
    yield Table("scores", "The same with every digit, and how many queries", rows, brief=())
    for place in evidence.places:
        mine = [row for row in seeds if (row["data"], row["backbone"], row["test"], row["row"]) == _key(place)]
        dots = [plots.Dot(str(row["arm"]), float(row["score"] or 0), f"{row['arm']}: {row['score']:.4f}") for row in mine]
        yield Figure(f"scores-{_slug(place)}", f"{place}: every seed's mean", plots.points(dots, "nDCG@10"), mine)
    yield Table("arms", "The arms", [{"arm": arm, "what": evidence.study.arms[arm].what} for arm in evidence.arms()])


def _rivals(evidence: Evidence) -> Iterator[Block]:
    """The tested arm against each of its rivals."""
    about, found = evidence.study.study, evidence.against()
    if not found:
        return
    rows = [{**_where(at), **_effect(gain, about.margin), "rival": rival} for at, run in found.items() for rival, gain in run.items()]
    bars = [
        plots.Bar(rival, gain.mean, gain.low, gain.high, _title(f"{about.tested} − {rival}", gain), str(at), (gain.low90, gain.high90))
        for at, run in found.items()
        for rival, gain in run.items()
    ]
    title = f"{about.tested} − each rival, {INTERVALS}"
    yield Figure("rivals", title, plots.forest(bars, "nDCG@10 gained", about.margin), rows)
    yield Table("rivals", title, ordered(rows, "data", "test", "row", "rival"), DIGITS, _brief(rows))


def _comparisons(evidence: Evidence) -> Iterator[Block]:
    """The study's own comparisons, those that decide first."""
    margin = evidence.study.study.margin
    deciding = sorted(evidence.study.compare, key=lambda each: not each.decides)
    found = [(each, at, gain) for each in deciding for at, gain in evidence.compared(each).items()]
    if not found:
        return
    rows = [
        {"what": each.what, "decides": "yes" if each.decides else "no", **_where(at), **_effect(gain, margin)} for each, at, gain in found
    ]
    bars = [
        plots.Bar(str(at), gain.mean, gain.low, gain.high, _title(each.what, gain), each.what, (gain.low90, gain.high90))
        for each, at, gain in found
    ]
    title = f"Comparisons, {INTERVALS}"
    yield Figure("comparisons", title, plots.forest(bars, "nDCG@10 gained", margin), rows)
    yield Table("comparisons", title, ordered(rows, "what", "decides", "data", "test", "row"), DIGITS, _brief(rows))


def _sweep(evidence: Evidence) -> Iterator[Block]:
    """What every learning rate scored on dev, and which was taken."""
    if not evidence.sweeps:
        return
    best = {(cell.data, cell.backbone, cell.arm): content["lr"] for cell, content in evidence.cells.items()}
    rates = sorted(evidence.study.sweep.lr)
    rows: list[Row] = []
    for cell, content in evidence.sweeps.items():
        taken = best.get((cell.data, cell.backbone, cell.arm)) == cell.lr
        edge = taken and cell.lr in (rates[0], rates[-1])
        where: Row = {"data": cell.data, "backbone": cell.backbone, "arm": cell.arm, "lr": cell.lr}
        rows.append(
            {**where, "criterion": content["criterion"], **content["dev"], "taken": "at the edge" if edge else "yes" if taken else ""}
        )
    columns = sorted(dict.fromkeys(key for row in rows for key in row), key=lambda name: name == "taken")
    rows = [{key: row.get(key) for key in columns} for row in rows]
    for data in dict.fromkeys(str(row["data"]) for row in rows):
        series: dict[str, list[tuple[float, float, str]]] = {}
        for row in (row for row in rows if row["data"] == data):
            lr, score = float(row["lr"] or 0), float(row["criterion"] or 0)
            series.setdefault(str(row["arm"]), []).append((lr, score, f"{row['arm']} at {lr:g}: {score:.4f}"))
        svg = plots.lines({arm: sorted(each) for arm, each in series.items()}, "learning rate", "mean nDCG@10 on dev")
        yield Figure(f"sweep-{data}", f"{data}: the sweep, on dev", svg, [row for row in rows if row["data"] == data])
    yield Table("sweep", "The sweep: dev scores by learning rate", rows, DIGITS)


def _gates(evidence: Evidence) -> Iterator[Block]:
    """The mean weights of the tested arm's routers, over seeds."""
    arm = evidence.study.study.tested or next((a for a in evidence.arms() if evidence.study.arms[a].method.name == "moe_lora"), None)
    for data in evidence.study.data if arm else ():
        for backbone in evidence.study.backbones:
            found: dict[tuple[str, str], list[float]] = {}
            for content in evidence.of(data=data, backbone=backbone, arm=str(arm)).values():
                for task, layers in content["gates"].items():
                    for layer, weights in layers.items():
                        for expert, weight in weights.items():
                            found.setdefault((layer, f"{task}: {expert}"), []).append(weight)
            if not found:
                continue
            means = [(layer, what, statistics.mean(each)) for (layer, what), each in found.items()]
            values = [weight for _, _, weight in means]
            rows: list[Row] = [{"layer": layer, "task: expert": what, "weight": weight} for layer, what, weight in means]
            svg = plots.heat(means, min(values), max(values), "weight, 1 where all count alike")
            yield Figure(f"gates-{data}-{backbone}", f"{data}, {backbone}: mean weights of {arm}'s routers, over seeds", svg, rows)


def _cost(evidence: Evidence) -> Table:
    """Parameters, and the pace of training by the wall clock, which a shared machine makes uneven."""
    rows: list[Row] = []
    for arm in evidence.arms():
        contents = list(evidence.of(arm=arm).values())
        parameters = contents[0]["train"].get("parameters", {})
        speeds = [each["timing"]["tokens_per_second"] for each in contents if each["timing"].get("tokens_per_second")]
        active = parameters.get("active", {})
        rows.append(
            {
                "arm": arm,
                "total": parameters.get("total"),
                "trainable": parameters.get("trainable"),
                "active, retrieve": active.get("retrieve"),
                "active, rerank": active.get("rerank"),
                "tokens per second": statistics.median(speeds) if speeds else None,
                "training tokens": contents[0]["train"].get("tokens"),
            }
        )
    return Table("cost", "Parameters, and tokens per second of training by the wall clock (a shared machine: no benchmark)", rows, DIGITS)


def _probe(name: str, found: list[dict[str, Any]]) -> Iterator[Block]:
    """The facts of a probe, means over seeds, and its first table of the first report."""
    rows: list[Row] = [{key: str(value) if isinstance(value, bool) else value for key, value in row.items()} for row in facts(found)]
    yield Table(f"probe-{name}", f"Probe {name}: its facts, means over seeds", rows)
    shown = {key for row in rows for key in row} | {
        key for table in found[0]["report"]["tables"].values() for row in table[:1] for key in row
    }
    units = [f"{key}: {unit}" for key, unit in found[0]["report"]["units"].items() if key in shown]
    if units:
        yield Text(f"In {name}, {'; '.join(units)}.")
    notes = list(dict.fromkeys(note for each in found for note in each["report"]["notes"]))
    for table, content in found[0]["report"]["tables"].items():
        if content:
            label = f"{found[0]['cell']['arm']}, {found[0]['cell']['data']}, seed {found[0]['cell']['seed']}"
            plain: list[Row] = [{key: str(value) if isinstance(value, bool) else value for key, value in row.items()} for row in content]
            yield Table(f"probe-{name}-{table}", f"Probe {name}, {table}: {label}", plain, brief=())
    if notes:
        yield Text(f"Probe {name}: {'; '.join(notes)}.")


def _brief(rows: list[Row]) -> tuple[str, ...]:
    """The columns for Markdown; where it was measured is one of them if that is not always what was learnt from."""
    return (*BRIEF, "test") if any(row["test"] != row["data"] for row in rows) else BRIEF


def ordered(rows: list[Row], *first: str) -> list[Row]:
    """Rows with these columns first, then what matters most of an effect; backbone and test set last."""
    keys = [*first, *EFFECT]
    return [{key: row[key] for key in (*keys, *(key for key in row if key not in keys))} for row in rows]


def _effect(found: Effect, margin: float) -> Row:
    """An effect as a row."""
    return {
        "a": found.a,
        "b": found.b,
        "difference": found.mean,
        "low": found.low,
        "high": found.high,
        "90 % low": found.low90,
        "90 % high": found.high90,
        "relative": found.relative,
        "p": found.p,
        "p of better": one_sided(found),
        "tie": "yes" if ties(found, margin) else "no",
        "d": found.d,
        "detectable": found.detectable,
        "seeds up": None if found.up is None else f"{found.up} of {found.seeds[0]}",
        "queries": found.queries,
        "seeds": f"{found.seeds[0]} and {found.seeds[1]}",
    }


def _title(what: str, found: Effect) -> str:
    return f"{what}: {found.mean:+.4f}, 95 % [{found.low:+.4f}, {found.high:+.4f}], p = {found.p:.4f}, n = {found.queries}"


def _where(at: Place) -> Row:
    return {"data": at.data, "backbone": at.backbone, "test": at.test, "row": at.row}


def _key(at: Place) -> tuple[str, str, str, str]:
    return at.data, at.backbone, at.test, at.row


def _slug(at: Place) -> str:
    return "-".join(dict.fromkeys(_key(at))).replace("/", "-")


__all__ = ["DECIDING", "blocks"]
