"""An assessment on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import RenderableType

from r2m.reports.table import terminal_table

Tree = dict[str, Any]

MEANS = {
    "gold": "gold", "vanilla": "frozen reward", "proxy": "reward with feedback", "kl": "KL (nats)",
    "tokens": "tokens", "characters": "characters",
}  # fmt: skip


def parts(tree: Tree, win_rates: Sequence[Tree]) -> list[RenderableType]:
    """What is printed of an assessment, with these of its win rates."""
    whose = "a model" if tree["run"] is None else f"{tree['run']}, {tree['arm']}, seed {tree['seed']}"
    shown = {key: value for key, value in tree["means"].items() if value is not None}
    if shown["proxy"] == shown["vanilla"]:  # no feedback
        shown.pop("proxy")
    means = [f"{MEANS.get(key, key)} {value:.3g}" for key, value in shown.items()]
    found: list[RenderableType] = [f"{whose}: {tree['prompts']} held-out prompts", ", ".join(means)]
    if win_rates:
        found.append(win_rate_table(win_rates))
    if tree["reward_accuracy"]:
        found.append(_accuracy_table(tree["reward_accuracy"]))
        found += [line for pairs in tree["reward_accuracy"] if (line := left_out(pairs))]
    similar = tree["similarity"]
    if similar is not None:
        found.append(
            f"similarity of hidden states: within hacking {similar['hacking']:.3f}, within normal "
            f"{similar['normal']:.3f}, across {similar['cross']:.3f} ({similar['prompts']} prompts)"
        )
    elif tree["means"]["gold"] is not None:
        found.append(
            "similarity of hidden states: cannot be judged; no prompt has two hacking and two normal responses"
        )
    return found


def win_rate_table(rates: Sequence[Tree]) -> RenderableType:
    """Rates in per cent, with 95 % intervals over the prompts."""
    table = terminal_table("judge", "against", "wins", "95 %", "at equal length", "ties", "left out", "n")
    for rate in rates:
        controlled = rate["length_controlled"]
        counts = [str(rate[key]) for key in ("ties", "unanswered", "n")]
        table.add_row(
            rate["judge"],
            rate["against"],
            _percent(rate["rate"]),
            _between(rate["interval"]),
            "–"
            if controlled is None
            else f"{_percent(controlled['rate'])} {_between(controlled['interval'])}",
            *counts,
        )
    return table


def _accuracy_table(sets: Sequence[Tree]) -> RenderableType:
    """Ties count as wrong; [UNK] is the share of the reward model's tokens that stand for what it does not know."""
    table = terminal_table(
        "accuracy on pairs from", "n", "[UNK]", "frozen", "untrained head", "trained head", text=[0]
    )
    for pairs in sets:
        cells = [pairs[key] for key in ("without", "before", "after")]
        table.add_row(
            pairs["pairs"],
            str(pairs["n"]),
            _percent(pairs.get("unknown")),
            *("–" if cell is None else _accuracy(cell) for cell in cells),
        )
    return table


def _accuracy(found: Tree) -> str:
    tied = f", {found['ties']} tied" if found["ties"] else ""
    return f"{_percent(found['accuracy'])} {_between(found['interval'])}{tied}"


def left_out(pairs: Tree) -> str | None:
    """What pairs of a set were not used, and why, on one line; None where all were."""
    why = pairs.get("left_out_why")
    if not why:
        return None
    parts = (
        f"{of['rows']:,}: {reason}" + (f" (first: {of['first']})" if "first" in of else "")
        for reason, of in why.items()
    )
    total = pairs["n"] + pairs["left_out"]
    return f"{pairs['pairs']}: {pairs['left_out']:,} of {total:,} pairs left out: {'; '.join(parts)}"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def _between(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"
