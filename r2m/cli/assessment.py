"""An assessment on a terminal."""

from collections.abc import Sequence

from rich.console import RenderableType

from r2m.reports.table import terminal_table
from r2m.results.assessment import Accuracy, Assessment, PairSet, Wins
from r2m.results.statistics import Interval

MEANS = {
    "gold": "gold", "vanilla": "vanilla reward", "proxy": "reward with feedback", "kl": "KL (nats)",
    "tokens": "tokens", "characters": "characters",
}  # fmt: skip


def parts(known: Assessment, win_rates: Sequence[Wins]) -> list[RenderableType]:
    """What is printed of an assessment, with these of its win rates."""
    whose = "a model" if known.run is None else f"{known.run}, {known.arm}, seed {known.seed}"
    shown = {key: value for key, value in known.means.items() if value is not None}
    if shown["proxy"] == shown["vanilla"]:  # no feedback
        shown.pop("proxy")
    means = [f"{MEANS.get(key, key)} {value:.3g}" for key, value in shown.items()]
    found: list[RenderableType] = [f"{whose}: {known.prompts} held-out prompts", ", ".join(means)]
    if win_rates:
        found.append(win_rate_table(win_rates))
    if known.reward_accuracy:
        found.append(_accuracy_table(known.reward_accuracy))
        found += [line for pairs in known.reward_accuracy if (line := left_out(pairs))]
    similar = known.similarity
    if similar is not None:
        within = f"within hacking {similar.hacking:.3f}, within normal {similar.normal:.3f}"
        across = f"across {similar.cross:.3f} ({similar.prompts} prompts)"
        found.append(f"similarity of hidden states: {within}, {across}")
    elif known.means["gold"] is not None:
        found.append(
            "similarity of hidden states: cannot be judged; no prompt has two hacking and two normal responses"
        )
    return found


def win_rate_table(rates: Sequence[Wins]) -> RenderableType:
    """Rates in per cent, with 95 % intervals over the prompts."""
    table = terminal_table("judge", "against", "wins", "95 %", "at equal length", "ties", "left out", "n")
    for rate in rates:
        even = rate.length_controlled
        at_equal = "–" if even is None else f"{_percent(even.rate)} {_between(even.interval)}"
        shares = (_percent(rate.rate), _between(rate.interval), at_equal)
        table.add_row(rate.judge, rate.against, *shares, *map(str, (rate.ties, rate.unanswered, rate.n)))
    return table


def _accuracy_table(sets: Sequence[PairSet]) -> RenderableType:
    """Ties count as wrong; [UNK] is the share of the reward model's tokens that stand for what it does not know."""
    table = terminal_table(
        "accuracy on pairs from", "n", "[UNK]", "vanilla", "untrained head", "trained head", text=[0]
    )
    for pairs in sets:
        accuracies = map(_accuracy, (pairs.without, pairs.before, pairs.after))
        table.add_row(pairs.pairs, str(pairs.n), _percent(pairs.unknown), *accuracies)
    return table


def _accuracy(found: Accuracy | None) -> str:
    if found is None:
        return "–"
    tied = f", {found.ties} tied" if found.ties else ""
    return f"{_percent(found.accuracy)} {_between(found.interval)}{tied}"


def left_out(pairs: PairSet) -> str | None:
    """What pairs of a set were not used, and why, on one line; None where all were."""
    if not pairs.left_out_why:
        return None
    parts = (
        f"{of['rows']:,}: {reason}" + (f" (first: {of['first']})" if "first" in of else "")
        for reason, of in pairs.left_out_why.items()
    )
    total = pairs.n + pairs.left_out
    return f"{pairs.pairs}: {pairs.left_out:,} of {total:,} pairs left out: {'; '.join(parts)}"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def _between(interval: Interval | None) -> str:
    return "" if interval is None else f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"
