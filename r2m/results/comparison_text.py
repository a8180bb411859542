"""What a comparison says: sentences that claim no more than its numbers do, and these as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from r2m.results.alarms import raised
from r2m.results.comparison import COLUMNS, ArmRow, Comparison, Difference
from r2m.results.numbers import MOST_NAMED, finite, interval, named, number, sentence, too_few
from r2m.results.readings import last
from r2m.results.statistics import MOST_P
from r2m.runs.journal import JournalView

FEW_ARMS = 2  # more are named without their numbers
FINDING_WORDS = {"better": "higher", "worse": "lower"}  # of the vanilla reward, whose height is no merit by itself


def sentences(c: Comparison) -> list[str]:
    """The headline first."""
    if c.metric is None:
        arms = named([row.arm.label for row in c.rows])
        return [
            f"No run of {arms} has been evaluated on held-out prompts, so nothing can be judged (run.eval_every)."
        ]
    alarm = raised([(row.arm.label, row.alarm) for row in c.rows])
    return [*_against_baseline(c), *_chance(c), *_unpaired(c), *_hacking(c), *alarm]


def numbers(comparisons: Sequence[Comparison], notes: Sequence[str]) -> dict[str, Any]:
    """A tree for json.dumps(allow_nan=False): a number that is not finite is null."""
    tree = [
        {
            "setup": c.setup, "metric": c.metric, "baseline": c.baseline, "verdict": sentences(c),
            "arms": [
                {
                    "arm": row.arm.label, "kind": row.arm.kind, "runs": [view.run_id for view in row.arm.runs],
                    "each": [_run(view) for view in row.arm.runs],
                    "seeds": row.arm.seeds, "status": row.status, "so_far": row.so_far,
                    "settings": dict(row.arm.settings),
                    "values": {key: asdict(e) for key, e in row.values.items()},
                    "gain": {key: asdict(e) for key, e in row.gain.items()},
                    "alarm": asdict(row.alarm) if row.alarm else None,
                }
                for row in c.rows
            ],
            "differences": [asdict(d) | {"finding": d.estimate.finding} for d in c.differences],
        }
        for c in comparisons
    ]  # fmt: skip
    return finite({"notes": list(notes), "setups": tree})


def _run(view: JournalView) -> dict[str, Any]:
    """A run of an arm: where it is from, and its last evaluation."""
    there = {key: last(view, key) for key in COLUMNS if view.series(key)[0]}
    return {
        "run": view.run_id, "seed": view.seed, "status": view.status, "role": view.tags.get("r2m.role"),
        "trial": view.tags.get("r2m.trial"), "values": there,
    }  # fmt: skip


def word(metric: str, found: str) -> str:
    """The finding, in the metric's words."""
    return FINDING_WORDS.get(found, found) if metric == "eval/vanilla" else found


def _against_baseline(c: Comparison) -> list[str]:
    """At the end, then at the same KL; then, once, the arms whose seeds are too few."""
    if len(c.rows) == 1:
        return [f"One arm, {c.baseline}: there is none to compare it with."]
    said: list[str] = []
    places = (True,) if c.metric == "eval/vanilla" else (False, True)  # its height means nothing without its KL
    mine = [d for d in c.differences if d.metric == c.metric]
    found = {matched: [d for d in mine if d.matched == matched] for matched in places}
    before: list[tuple[str, str]] = []
    for matched in places:
        clear = [d for d in found[matched] if enough(d)]
        findings = [(d.arm, d.estimate.finding) for d in clear]
        if findings == before and len(clear) > 1:
            said.append("At the same KL the findings are the same.")
        elif clear:
            said.append(_found(clear, c.baseline, f"{c.metric}{' at the same KL' * matched}"))
        before = findings
    by = f"{c.metric}{' at the same KL' * places[0]}"
    few = [d for d in found[places[0]] if not enough(d)]
    if len(few) > 1:
        return [*said, too_few([d.arm for d in few], [c.baseline], by, [d.estimate for d in few], "seed")]
    return said + [sentence(d.arm, c.baseline, by, d.estimate) for d in few]


def enough(d: Difference) -> bool:
    """Whether it has the seeds for a finding."""
    return d.estimate.finding != "too few seeds"


def _found(clear: Sequence[Difference], baseline: str, by: str) -> str:
    """One sentence on differences that have seeds enough."""
    if len(clear) == 1:
        return sentence(clear[0].arm, baseline, by, clear[0].estimate)
    better, worse, same = (
        [d for d in clear if d.estimate.finding == finding] for finding in ("better", "worse", "not distinguishable")
    )
    if len(better) == 1:
        head = sentence(better[0].arm, baseline, by, better[0].estimate).removesuffix(".")
    elif better:
        head = f"{named([d.arm for d in better])} are better than {baseline} by {by}"
    else:
        head = f"No arm can be said to be better than {baseline} by {by}"
    rest = [
        f"{named([d.arm for d in of])} {'are' if len(of) > 1 else 'is'} {what}"
        for of, what in ((same, "not distinguishable from it"), (worse, "worse"))
        if of
    ]
    return "; ".join([head, *rest]) + "."


def _chance(c: Comparison) -> list[str]:
    """How many findings chance alone may make of many comparisons."""
    tested = sum(d.metric == c.metric and d.estimate.finding != "too few seeds" for d in c.differences)
    said = f"Of these {tested} comparisons, chance alone would make up to {number(tested * MOST_P)} better or worse."
    return [said] * (tested > MOST_NAMED)


def _unpaired(c: Comparison) -> list[str]:
    """Arms that are in no difference, and why."""
    paired = {d.arm for d in c.differences if not d.matched}
    told = []
    unfinished = [row.arm.label for row in c.rows if row.so_far]
    if unfinished:
        told.append(f"No run of {named(unfinished)} has finished: shown as far as they have come, and not compared.")
    apart = [row.arm.label for row in c.rows[1:] if row.arm.label not in paired and not row.so_far]
    if apart and not c.rows[0].so_far:
        told.append(f"No seed has finished in both {c.baseline} and {named(apart)}: no paired difference.")
    return told


def _hacking(c: Comparison) -> list[str]:
    """What gold and the vanilla reward did from the first evaluation to the last: hacking where they part."""
    both = ("eval/gold", "eval/vanilla")
    rows = [row for row in c.rows if row.gain.keys() >= {*both}]
    parted = [row for row in rows if row.gain["eval/gold"].mean < 0 < row.gain["eval/vanilla"].mean]
    sure = [row for row in parted if [row.gain[key].finding for key in both] == ["worse", "better"]]
    doubt = [row for row in parted if any(row.gain[key].finding == "too few seeds" for key in both)]
    told = []
    for chosen, what in ((sure, "Reward hacking"), (doubt, "Like reward hacking, on fewer than five seeds")):
        if chosen:
            few = len(rows) <= FEW_ARMS
            arms = ", ".join(map(_numbers, chosen)) if few else named([row.arm.label for row in chosen])
            told.append(
                f"{what}: from the first evaluation to the last, gold falls while the vanilla reward rises in {arms}."
            )
    return told


def _numbers(row: ArmRow) -> str:
    gold, vanilla = row.gain["eval/gold"], row.gain["eval/vanilla"]
    between = [f", {interval(e)}" if e.interval else "" for e in (gold, vanilla)]
    changes = f"gold {number(gold.mean)}{between[0]}; vanilla reward {number(vanilla.mean)}{between[1]}"
    return f"{row.arm.label} ({changes}; {gold.n} seed{'s' * (gold.n > 1)})"
