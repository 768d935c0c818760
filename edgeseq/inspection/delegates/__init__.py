"""Which operators each delegate would take, by what its makers publish: one file of data per engine.

A forecast from documents, not a measurement: only the device tells what it took.
"""

import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, cast

from edgeseq import lookup
from edgeseq.inspection.operator import Operator

Verdict = Literal["takes", "leaves", "unknown"]
FLOATS = frozenset({"float32", "float16"})


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What a delegate demands of one operator, as far as the file shows it."""

    dtypes: frozenset[str] = frozenset({"float32"})  # of the data: the first input and the first output
    constant: tuple[int, ...] = ()  # inputs that must be constants, where they are given
    ranks: tuple[int, ...] = ()  # that the first input may have; none named: any
    most_inputs: int | None = None
    unless: str = ""  # a condition that the file's operators do not show, for the reader


@dataclass(frozen=True, kw_only=True)
class Delegate:
    """One engine that takes over operators of one format."""

    title: str
    format: str
    source: str  # what its makers published, and when it was read
    caveat: str  # what the source leaves open
    rules: Mapping[str, Rule] = field(default_factory=dict)
    otherwise: Verdict = "leaves"  # of an operator without a rule
    refuses: Mapping[str, str] = field(default_factory=dict)  # type of the data -> why no operator on it is taken
    enters_bodies: bool = True  # whether it takes operators in the bodies of loops

    def judge(self, operator: Operator) -> Verdict:
        """Whether it would take the operator."""
        data = [*operator.inputs[:1], *operator.outputs[:1]]
        if (operator.is_nested and not self.enters_bodies) or any(o.dtype in self.refuses for o in data):
            return "leaves"
        rule = self.rules.get(operator.kind)
        if rule is None:
            return self.otherwise
        if any(operand.dtype and operand.dtype not in rule.dtypes for operand in data):
            return "leaves"
        if any(i < len(operator.inputs) and not operator.inputs[i].is_constant for i in rule.constant):
            return "leaves"
        if rule.most_inputs is not None and len(operator.inputs) > rule.most_inputs:
            return "leaves"
        if not rule.ranks:
            return "takes"
        shape = operator.inputs[0].shape if operator.inputs else None
        if shape is None:
            return "unknown"
        return "takes" if len(shape) in rule.ranks else "leaves"


@dataclass(frozen=True, kw_only=True)
class Share:
    """What one delegate would take of one model: operators with counts."""

    delegate: str
    title: str
    takes: Mapping[str, int]
    leaves: Mapping[str, int]
    unknown: Mapping[str, int]
    conditions: Mapping[str, str]  # operator that it takes -> what would make it leave it, and the file does not show
    source: str
    caveat: str


def shares(format: str, operators: Iterable[Operator]) -> tuple[Share, ...]:
    """What each delegate of the format would take."""
    listed = tuple(operators)
    names = lookup.names(sys.modules[__name__], "DELEGATE", declaring=f'format="{format}"')
    return tuple(
        _share(name, cast(Delegate, lookup.get(sys.modules[__name__], name, "DELEGATE")), listed) for name in names
    )


def _share(name: str, delegate: Delegate, operators: tuple[Operator, ...]) -> Share:
    counts: dict[Verdict, Counter[str]] = {"takes": Counter(), "leaves": Counter(), "unknown": Counter()}
    for operator in operators:
        counts[delegate.judge(operator)][operator.kind] += 1
    return Share(
        delegate=name,
        title=delegate.title,
        takes=dict(sorted(counts["takes"].items())),
        leaves=dict(sorted(counts["leaves"].items())),
        unknown=dict(sorted(counts["unknown"].items())),
        conditions={k: r.unless for k, r in sorted(delegate.rules.items()) if r.unless and counts["takes"][k]},
        source=delegate.source,
        caveat=delegate.caveat,
    )
