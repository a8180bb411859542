"""May an arm's policy become the champion? From the numbers of a comparison, as `r2m compare --json` writes them, and
from its win rate against the present champion. What is not known holds no condition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from r2m.pipelines.compared import (
    Tree,
    arm_in,
    estimate_of,
    finished_in,
    finite_number,
    last_of,
    median_run,
    named_arm,
)
from r2m.pipelines.when import WantedDifference, When
from r2m.results.assessment import Wins
from r2m.results.numbers import named, number, sentence
from r2m.results.readings import KL
from r2m.results.statistics import ENOUGH, Estimate

UNJUDGED = "eval/vanilla"  # whose height is no merit but at the same KL


@dataclass(frozen=True)
class ChampionRate:
    """The present champion. `wins`: the new policy's against it; None where there is no such rate, for `reason`."""

    name: str
    run: str
    wins: Wins | None
    reason: str = ""


@dataclass(frozen=True)
class Condition:
    """`short`: what is the matter where it does not hold."""

    held: bool
    sentence: str
    short: str


@dataclass(frozen=True)
class Decision:
    """`run`: which one is to be promoted. `verdict`: a sentence."""

    promote: bool
    run: str | None
    verdict: str
    conditions: tuple[Condition, ...]

    @property
    def sentences(self) -> list[str]:
        """The verdict first."""
        return [self.verdict, *(condition.sentence for condition in self.conditions)]


def decide(comparison: Tree, arm: str, when: When, champion: ChampionRate | None) -> Decision:
    """`champion`: None where there is none yet."""
    setup, mine, why = arm_in(comparison, arm, when.over)
    if setup is None or mine is None:
        return _decision(arm, None, [Condition(False, f"{why}.", f"{why[0].lower()}{why[1:]}")])
    run = median_run(setup, mine)
    if champion is not None and run == champion.run:
        return Decision(False, run, f"{arm}: its run {run} is the champion already, {champion.name}.", ())
    return _decision(arm, run, list(_conditions(setup, mine, when, run, champion)))


def candidate(comparison: Tree, arm: str, when: When) -> str | None:
    """The run that stands for an arm, as `median_run`: the best one would owe its place to chance."""
    setup, mine, _ = arm_in(comparison, arm, when.over)
    return None if setup is None or mine is None else median_run(setup, mine)


def _conditions(
    setup: Tree, mine: Tree, when: When, run: str | None, champion: ChampionRate | None
) -> list[Condition]:
    found = [_fresh(mine, when, run)]
    if when.difference is not None:
        found.append(_difference(setup, mine, when.difference))
    if when.kl_at_most is not None:
        found.append(_kl(mine, when.kl_at_most))
    if when.alarm == "none":
        found.append(_alarm(mine))
    if when.champion_win_rate is not None:
        found.append(_champion(champion, when.champion_win_rate))
    return found


def _decision(arm: str, run: str | None, conditions: Sequence[Condition]) -> Decision:
    failing = [condition.short for condition in conditions if not condition.held]
    if failing:
        return Decision(False, run, f"{arm} is not promoted: {'; '.join(failing)}.", tuple(conditions))
    return Decision(True, run, f"{arm} is promoted, its run {run}: all of the conditions hold.", tuple(conditions))


def _fresh(mine: Tree, when: When, run: str | None) -> Condition:
    each, done = list(mine.get("each") or ()), finished_in(mine)
    if run is None or not done:
        return Condition(False, "No run of it has finished and been evaluated.", "no run of it has finished")
    if any("role" not in of for of in each):
        return Condition(False, "Whether its runs are a search's own is not known.", "its seeds may not be fresh")
    searched = [of["run"] for of in each if of["role"] == "search"]
    if searched:
        said = f"Not on fresh seeds: a search's own are {named(searched)}."
        return Condition(False, said, "its seeds are not fresh")
    if again := sorted({of["seed"] for of in done} & {*when.chosen_on}):
        said = f"It was chosen on seed {', '.join(map(str, again))}, on which it is compared."
        return Condition(False, said, "its seeds are not fresh")
    seeds = ", ".join(str(of["seed"]) for of in done)
    of_all = f" of {len(each)}" if len(done) < len(each) else ""
    s = "s" * (len(done) > 1)
    return Condition(True, f"Fresh: {len(done)}{of_all} finished run{s} on seed{s} {seeds}, none a search's own.", "")


def _difference(setup: Tree, mine: Tree, wanted: WantedDifference) -> Condition:
    metric, at = wanted.metric or setup.get("metric"), " at the same KL" * wanted.same_kl
    unknown = f"there is no paired difference from {wanted.over}"
    base = named_arm(setup, setup.get("baseline"))
    if base is None or base is not named_arm(setup, wanted.over):
        said = f"The comparison is with {setup.get('baseline')}: {unknown}."
        return Condition(False, said, unknown)
    if metric == UNJUDGED and not wanted.same_kl:
        said = f"{UNJUDGED} is no merit at the end of training: same_kl is needed, or another metric."
        return Condition(False, said, unknown)
    e = next(
        (
            estimate_of(d.get("estimate")) for d in setup.get("differences", ())
            if d.get("arm") == mine["arm"] and d.get("metric") == metric and d.get("matched") is wanted.same_kl
        ),
        None,
    )  # fmt: skip
    if e is None:
        return Condition(False, f"In {metric}{at} {unknown}.", unknown)
    what = "the interval's lower end, on five seeds or more," if wanted.finding else "the mean"
    said = sentence(mine["arm"], wanted.over, f"{metric}{at}", e).removesuffix(".")
    return Condition(
        _far_enough(e, wanted), f"{said}; {what} has to be at least {number(wanted.at_least)}.",
        f"its gain over {wanted.over} is not what is wanted",
    )  # fmt: skip


def _far_enough(e: Estimate, wanted: WantedDifference) -> bool:
    if not wanted.finding:
        return e.mean >= wanted.at_least
    if e.n < ENOUGH or e.interval is None:
        return False
    # Below 0 it is "not worse by more than": the sign-flip p, of a difference of 0, has nothing to say of that.
    return (wanted.at_least < 0 or e.finding == "better") and e.interval[0] >= wanted.at_least


def _kl(mine: Tree, most: float) -> Condition:
    found = [last_of(of, KL) for of in finished_in(mine)]
    known = [kl for kl in found if kl is not None]
    if not known or len(known) < len(found):
        said = f"KL: known of {len(known)} of its {len(found)} finished runs."
        return Condition(False, said, "its KL is not known")
    means = f"{number(sum(known) / len(known))} nats per sequence in the mean and {number(max(known))} at most"
    return Condition(max(known) <= most, f"KL: {means}; {number(most)} are allowed.", "its KL is beyond the limit")


def _alarm(mine: Tree) -> Condition:
    n, alarm = len(mine.get("runs") or ()), mine.get("alarm") or {}
    watched, rounds = finite_number(alarm.get("watched")) or 0, alarm.get("rounds") or ()
    if rounds:
        said = f"The alarm was raised in {len(rounds)} of {n} runs, in round {', '.join(map(str, rounds))}."
        return Condition(False, said, "the alarm was raised")
    if not n or watched < n:
        said = f"Only {watched:g} of its {n} runs looked for the alarm."
        return Condition(False, said, "not all of its runs looked for the alarm")
    return Condition(True, f"None of its {n} runs raised the alarm.", "")


def _champion(champion: ChampionRate | None, least: float) -> Condition:
    if champion is None:
        return Condition(True, "There is no champion yet to hold it against.", "")
    unknown = "its win rate against the champion is not known"
    wins = champion.wins
    if wins is None or finite_number(wins.rate) is None or wins.interval is None:
        why = f": {champion.reason}" if champion.reason else ""
        return Condition(False, f"Its win rate against the champion, {champion.name}, is not known{why}.", unknown)
    low, high = wins.interval
    left_out = f", {wins.unanswered} without an answer" if wins.unanswered else ""
    said = (
        f"Against the champion, {champion.name}, it wins {_percent(wins.rate)} of {wins.n} held-out prompts by "
        f"{wins.judge} (95 % interval {_percent(low)} to {_percent(high)}, {wins.ties} ties{left_out}); the "
        f"interval's lower end has to be at least {_percent(least)}."
    )
    return Condition(low >= least and wins.n >= ENOUGH, said, "it is not clearly better than the champion")


def _percent(share: float | None) -> str:
    return f"{number(100 * (share or 0.0))} %"
