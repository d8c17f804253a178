"""The data of a trial, checked against its settings before it starts: what `twofold check` prints in full."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from twofold.backbone.backbone import position_limit
from twofold.backbone.load import load_tokenizer
from twofold.backbone.tokens import TextTokens
from twofold.config import BackboneConfig, TrialConfig
from twofold.data import report
from twofold.data.check import Facts, examine
from twofold.data.findings import Demand, Finding, Limits, as_dict, judge
from twofold.data.sources import Dataset
from twofold.errors import DataError
from twofold.prompts import prompts_of
from twofold.records import Document
from twofold.tasks import reads
from twofold.train.material import Say
from twofold.train.trial import method_of

_AMPLE = 1 << 16
"""Tokens that no template fills."""
SCAN = 20_000
"""Documents read before a training, in the search for repeats; `twofold check` reads all."""


@dataclass(frozen=True)
class Ruler:
    """A backbone's tokenizer, as a measure of length."""

    tokenizer: Any
    around_document: int
    """Tokens of the template around one text, and of a document's prompt."""
    around_pair: int
    """Tokens of all that stands around the two texts of a pair."""
    reach: int
    """The most tokens that the model has positions for."""

    @classmethod
    def of(cls, backbone: BackboneConfig) -> Ruler:
        """Opens the tokenizer; the weights are not read. Raises ConfigError where there is none."""
        tokenizer, config = load_tokenizer(backbone.name)
        prompts = prompts_of(backbone.template, backbone.instruction, backbone.prompts)
        tokens = TextTokens(tokenizer, max_length=_AMPLE, pair_length=_AMPLE, query_length=_AMPLE // 4, prompts=prompts)
        around_document, around_pair = tokens.texts([""], "document").tokens, tokens.pairs([("", "")]).tokens
        return cls(tokenizer, around_document, around_pair, position_limit(config))

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text alone, nothing cut."""
        encoded = self.tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False)
        return [len(ids) for ids in encoded["input_ids"]]

    def limits(self, config: TrialConfig) -> Limits:
        """What the settings keep of a text."""
        document, pair = (min(length, self.reach) for length in (config.backbone.max_length, config.backbone.pair_length))
        return Limits(
            query=config.backbone.query_length,
            document=document,
            pair=pair,
            around_document=self.around_document,
            around_pair=self.around_pair,
            reach=self.reach,
            training_document=min(config.optim.max_length or document, document),
            training_pair=min(config.optim.pair_length or pair, pair),
        )


@dataclass(frozen=True)
class Check:
    """What was counted of a dataset, and what it means for a trial."""

    facts: Facts
    limits: Limits
    findings: list[Finding]

    @property
    def errors(self) -> list[Finding]:
        """The findings for which a training does not start."""
        return [finding for finding in self.findings if finding.level == "error"]

    def lines(self, short: bool = False) -> list[str]:
        """For people: all of it, or what is said before a training."""
        return list((report.short if short else report.lines)(self.facts, self.limits, self.findings))

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        return as_dict(self.facts, self.limits, self.findings)


def judged(config: TrialConfig, facts: Facts, ruler: Ruler) -> Check:
    """What counted facts mean under the settings of a trial."""
    limits = ruler.limits(config)
    return Check(facts, limits, judge(facts, limits, demands(config)))


def demands(config: TrialConfig) -> dict[str, Demand]:
    """Task → what it asks of queries and documents in every step, over all processes; nothing where the method trains nothing."""
    if not any(member.stages for member in method_of(config).members):
        return {}
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    return {name: Demand(task.batch * processes, task.negatives) for name, task in config.tasks.items() if reads(name) is not Document}


def check_before(config: TrialConfig, datasets: Mapping[str, Dataset], facts: Mapping[str, Facts], say: Say) -> None:
    """Says the short form of the check of every dataset; `facts` holds what was counted of it already.

    Raises DataError with all errors, where there are any.
    """
    if not datasets:
        return
    ruler = Ruler.of(config.backbone)
    errors = []
    for name, dataset in datasets.items():
        found = judged(config, facts.get(name) or examine(dataset, ruler.count, SCAN), ruler)
        for line in found.lines(short=True):
            say(line)
        errors += [f"{name}: {error.text}; {error.advice}" for error in found.errors]
    if errors:
        raise DataError("\n".join(errors))
