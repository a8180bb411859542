"""What a comparison says: sentences that claim no more than its numbers do, and these as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from r2m.results.comparison import ArmRow, Comparison
from r2m.results.numbers import finite, interval, number, sentence
from r2m.results.statistics import FINDINGS, MOST_P

FEW_ARMS = 2  # more are listed by finding, not told one by one
MOST_ARMS = 6  # more are counted, not named
FINDING_WORDS = {"better": "higher", "worse": "lower"}  # of the vanilla reward, whose height is no merit by itself


def sentences(c: Comparison) -> list[str]:
    """The headline first."""
    if c.metric is None:
        arms = _some([row.arm.label for row in c.rows])
        return [
            f"No run of {arms} has been evaluated on held-out prompts, so nothing can be judged (run.eval_every)."
        ]
    return [*_against_baseline(c), *_chance(c), *_unpaired(c), *_hacking(c)]


def numbers(comparisons: Sequence[Comparison], notes: Sequence[str]) -> dict[str, Any]:
    """A tree for json.dumps(allow_nan=False): a number that is not finite is null."""
    tree = [
        {
            "setup": c.setup, "metric": c.metric, "baseline": c.baseline, "verdict": sentences(c),
            "arms": [
                {
                    "arm": row.arm.label, "kind": row.arm.kind, "runs": [view.run_id for view in row.arm.runs],
                    "seeds": row.arm.seeds, "status": row.status, "so_far": row.so_far,
                    "values": {key: asdict(e) for key, e in row.values.items()},
                    "gain": {key: asdict(e) for key, e in row.gain.items()},
                }
                for row in c.rows
            ],
            "differences": [asdict(d) | {"finding": d.estimate.finding} for d in c.differences],
        }
        for c in comparisons
    ]  # fmt: skip
    return finite({"notes": list(notes), "setups": tree})


def word(metric: str, found: str) -> str:
    """The finding, in the metric's words."""
    return FINDING_WORDS.get(found, found) if metric == "eval/vanilla" else found


def _against_baseline(c: Comparison) -> list[str]:
    if len(c.rows) == 1:
        return [f"One arm, {c.baseline}: there is none to compare it with."]
    told = []
    for matched, most in ((False, MOST_ARMS), (True, FEW_ARMS)):
        if c.metric == "eval/vanilla" and not matched:
            continue  # its height says nothing without the KL that bought it
        found = [d for d in c.differences if d.metric == c.metric and d.matched == matched]
        by = f"{c.metric}{' at the same KL' * matched}"
        if len(found) > 1 and all(d.estimate.n == 1 for d in found):
            low, high = (number(f(d.estimate.mean for d in found)) for f in (min, max))
            names = _some([d.arm for d in found])
            told.append(f"One seed each cannot tell {names} from {c.baseline}: differences in {by} of {low} to "
                        f"{high} say nothing about chance.")  # fmt: skip
        elif len(found) > most:
            arms = {f: [d.arm for d in found if d.estimate.finding == f] for f in FINDINGS}
            lists = "; ".join(f"{f}: {_some(labels)}" for f, labels in arms.items() if labels)
            told.append(f"Against {c.baseline} by {by}, {lists}.")
        else:
            told += [sentence(d.arm, c.baseline, by, d.estimate) for d in found]
    return told


def _chance(c: Comparison) -> list[str]:
    """How many findings chance alone may make of many comparisons."""
    tested = sum(d.metric == c.metric and d.estimate.finding != "too few seeds" for d in c.differences)
    said = f"Of these {tested} comparisons, chance alone would make up to {number(tested * MOST_P)} better or worse."
    return [said] * (tested > MOST_ARMS)


def _unpaired(c: Comparison) -> list[str]:
    """Arms that are in no difference, and why."""
    paired = {d.arm for d in c.differences if not d.matched}
    told = []
    unfinished = [row.arm.label for row in c.rows if row.so_far]
    if unfinished:
        told.append(f"No run of {_some(unfinished)} has finished: shown as far as they have come, and not compared.")
    apart = [row.arm.label for row in c.rows[1:] if row.arm.label not in paired and not row.so_far]
    if apart and not c.rows[0].so_far:
        told.append(f"No seed has finished in both {c.baseline} and {_some(apart)}: no paired difference.")
    return told


def _hacking(c: Comparison) -> list[str]:
    """What gold and the vanilla reward did from the first evaluation to the last: hacking where they part."""
    both = ("eval/gold", "eval/vanilla")
    rows = [row for row in c.rows if row.gain.keys() >= {*both}]
    parted = [row for row in rows if row.gain["eval/gold"].mean < 0 < row.gain["eval/vanilla"].mean]
    sure = [row for row in parted if [row.gain[key].finding for key in both] == ["worse", "better"]]
    doubt = [row for row in parted if any(row.gain[key].finding == "too few seeds" for key in both)]
    told = []
    for chosen, what in ((sure, "Reward hacking"), (doubt, "Too few seeds to say that is reward hacking")):
        if chosen:
            few = len(rows) <= FEW_ARMS
            arms = ", ".join(map(_numbers, chosen)) if few else _some([row.arm.label for row in chosen])
            told.append(
                f"{what}: from the first evaluation to the last, gold falls while the vanilla reward rises in {arms}."
            )
    return told


def _numbers(row: ArmRow) -> str:
    gold, vanilla = row.gain["eval/gold"], row.gain["eval/vanilla"]
    between = [f", {interval(e)}" if e.interval else "" for e in (gold, vanilla)]
    changes = f"gold {number(gold.mean)}{between[0]}; vanilla reward {number(vanilla.mean)}{between[1]}"
    return f"{row.arm.label} ({changes}; {gold.n} seed{'s' * (gold.n > 1)})"


def _some(labels: Sequence[str]) -> str:
    """The arms by name, or how many they are where names would be too long for a sentence."""
    if len(labels) > MOST_ARMS:
        return f"{len(labels)} arms"
    return ", ".join(f"'{label}'" if "," in label else label for label in labels)
