"""A sweep's answer and its trials as Markdown, for optuna-dashboard. What models and users wrote is escaped."""

import re
import textwrap
from collections.abc import Sequence

from r2m.reports.render import visible
from r2m.reports.sweep_tables import continued
from r2m.results.answer import Answer, Ranked
from r2m.results.numbers import decimals
from r2m.results.texts import LIKED, ArmText
from r2m.results.verdict import fields, held_out, spent, state

_TOP = 10  # arms of the ranking


def answer_note(a: Answer) -> str:
    """The verdict, the head of the ranking, the cost."""
    head, *more = map(escaped, a.verdict)
    columns = ["arm", "state", *a.objectives, *held_out(a)]
    rows = [[arm.in_search, state(a, arm), *map(decimals, arm.values), *fields(a, arm)] for arm in a.ranking[:_TOP]]
    left = len(a.ranking) - len(rows)
    return "\n\n".join([
        f"**{head}**", *more, _table([columns, *rows]), *[f"{left} more in the ranking."] * (left > 0),
        escaped(spent(a)),
    ])  # fmt: skip


def trial_note(a: Answer, arm: Ranked, picture: str | None, liked: Sequence[ArmText]) -> str:
    """What became of a trial. `picture`: the address of its curves. `liked`: the texts that tell most against it."""
    became = arm.state if arm.feasible or arm.state != "complete" else "infeasible"  # a place on a front may pass
    values = zip((*a.objectives, *held_out(a)), (*map(decimals, arm.values), *fields(a, arm)), strict=True)
    parts = ["**" + escaped(f"{arm.in_search}: {became}; " + ", ".join(map(" ".join, values))) + "**"]
    if arm.reason:
        parts.append(escaped(arm.reason))
    if picture:
        parts.append(f"![curves]({picture})")
    if arm.command:
        parts.append(f"Again:\n\n{fenced(continued(arm.command))}")
    if liked:
        parts.append(f"### {LIKED}")
    for text in liked:
        at = "the trained policy" if text.round is None else f"round {text.round}"
        parts.append(escaped(f"{text.run}, {at}: proxy {decimals(text.proxy)}, gold {decimals(text.gold)}"))
        parts.append(fenced(_wrapped(f"{text.prompt}\n\n→ {text.response}")))
    return "\n\n".join(parts)


def escaped(text: str) -> str:
    """Plain text within a line of Markdown: none of its characters acts."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", visible(text).replace("\n", " "))


def fenced(text: str) -> str:
    """Text as a block in which nothing acts: its fence is longer than any run of backticks in it."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{visible(text)}\n{fence}"


def _wrapped(text: str) -> str:
    """On lines that a page has room for; no character of it is lost."""
    lines = textwrap.TextWrapper(100, replace_whitespace=False, drop_whitespace=False, expand_tabs=False)
    return "\n".join("\n".join(lines.wrap(line)) for line in text.split("\n"))


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(map(escaped, row)) + " |" for row in rows]
    return "\n".join([lines[0], "| --- " * len(rows[0]) + "|", *lines[1:]])
