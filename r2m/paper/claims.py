"""The paper's claims, each with its source, and what these runs say of it.

A claim about a difference holds where r2m.results.findings.finding calls it better in the claimed direction, and
does not where it calls it worse. With fewer than five seeds, or a difference that cannot be told from 0, it cannot
be judged: that nothing was seen does not show that there is nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from r2m.paper.arms import METHODS
from r2m.paper.results import (
    Results,
    Values,
    accuracy,
    difference,
    journalled,
    mean_of,
    over_rounds,
    pair_sets,
    similarity,
    win_rate,
)
from r2m.results.findings import finding
from r2m.results.numbers import interval, number
from r2m.results.statistics import Estimate
from r2m.runs.journal import JournalView

HOLDS, FAILS, OPEN = "holds", "does not hold", "cannot be judged"
CLASSES = {HOLDS: "better", FAILS: "worse", OPEN: ""}  # of the stylesheet
NEGLIGIBLE = 1.1  # of RLOO's cost; the paper names no number
POINTS, SHARE = " points", 100.0

Judged = tuple[str, str]  # one of the three, and the sentence that says why


@dataclass(frozen=True)
class Claim:
    text: str
    source: str
    judge: Callable[[Results], Judged]


@dataclass(frozen=True)
class Part:
    """a - b over the seeds that both have, named, and the sign that the claim gives it."""

    what: str
    a: Values
    b: Values
    claimed: int = 1
    scale: float = 1.0
    unit: str = ""

    def judged(self) -> Judged:
        sides = [{seed: self.scale * value for seed, value in side.items()} for side in (self.a, self.b)]
        d = difference(*sides)
        if d is None:
            return OPEN, f"{self.what}: no two runs of one seed have it."
        found = finding(d)
        verdict = OPEN
        if found in ("better", "worse"):
            verdict = HOLDS if (found == "better") == (self.claimed > 0) else FAILS
        return verdict, f"{self.what}: {_numbers(d, self.unit)}{_tail(d, found, self.claimed)}."


def judge_all(r: Results) -> list[tuple[Claim, Judged]]:
    return [(claim, claim.judge(r)) for claim in CLAIMS]


def all_of(*parts: Part) -> Judged:
    """A claim of several parts: it fails by any of them, and holds by all."""
    verdicts, sentences = zip(*(part.judged() for part in parts), strict=True)
    verdict = FAILS if FAILS in verdicts else OPEN if OPEN in verdicts else HOLDS
    return verdict, " ".join(sentences)


def best_baseline(r: Results) -> Judged:
    rates = {arm: win_rate(r, arm) for arm in METHODS if arm != "R2M"}
    means = {arm: sum(values.values()) / len(values) for arm, values in rates.items() if values}
    if not means:
        return OPEN, "No baseline is assessed."
    best = max(means, key=lambda arm: means[arm])
    verdict, sentence = _rates("R2M", best, r).judged()
    absent = [arm for arm in rates if arm not in means]
    return verdict, f"The best baseline is {best}. {sentence}" + f" Not there: {', '.join(absent)}." * bool(
        absent
    )


def accuracies(before: str, claimed: int) -> Callable[[Results], Judged]:
    def judge(r: Results) -> Judged:
        parts = [
            Part(f"{pairs[:1].upper()}{pairs[1:]}, {before} − without feedback", accuracy(r, "R2M", pairs, before),
                 accuracy(r, "R2M", pairs, "without"), claimed, SHARE, POINTS)
            for pairs in pair_sets(r, "R2M")
        ]  # fmt: skip
        if not parts:
            return OPEN, "No run of R2M is assessed."
        first, *others = [part.judged() for part in parts]
        return first[0], " ".join([first[1], *(f"Beside it: {sentence}" for _, sentence in others)])

    return judge


def collapse(r: Results) -> Judged:
    """By gold, where the task has it: on the embedded task its references have all of it, and nobody wins against
    them. Whether RLOO collapses comes first: where it does not, there is nothing to prevent."""
    gold = bool(mean_of(r, "RLOO", "gold"))

    def part(a: str, b: str, claimed: int) -> Part:
        if not gold:
            return _rates(a, b, r, "reference", claimed=claimed)
        return Part(f"Gold, {a} − {b}", mean_of(r, a, "gold"), mean_of(r, b, "gold"), claimed)

    collapses, said = part("RLOO", "SFT", -1).judged()
    if collapses != HOLDS:
        return OPEN, f"That RLOO collapses is not shown. {said}"
    verdict, sentence = all_of(part("R2M", "SFT", 1), part("R2M", "RLOO", 1))
    return verdict, f"{said} {sentence}"


def between(arm: str) -> Callable[[Results], Judged]:
    return lambda r: all_of(_rates(arm, "RLOO", r), _rates(arm, "R2M", r, claimed=-1))


def across_lower(r: Results) -> Judged:
    across = similarity(r, "RLOO", "cross")
    return all_of(*(
        Part(f"RLOO's runs, across − within {kind}", across, similarity(r, "RLOO", kind), -1)
        for kind in ("hacking", "normal")
    ))  # fmt: skip


def trend(r: Results) -> Judged:
    """Pearson's r over a run's evaluations, against no correlation."""
    found = journalled(r, "R2M", _correlation)
    return Part("Pearson's r of both over a run's evaluations", found, dict.fromkeys(found, 0.0)).judged()


def cheap(r: Results) -> Judged:
    """By the least and the greatest ratio that the repetitions allow."""
    if r.cost is None:
        return OPEN, "The cost has not been measured."
    sentences, verdicts = [], []
    for what, key, unit in (("Time of a round", "round_s", "s"), ("Peak memory", "peak_mib", "MiB")):
        own = {arm: [m[key] for m in r.cost["measurements"] if m["arm"] == arm] for arm in ("RLOO", "R2M")}
        rloo, full = own["RLOO"], own["R2M"]
        low, high = min(full) / max(rloo), max(full) / min(rloo)
        verdicts.append(HOLDS if high <= NEGLIGIBLE else FAILS if low > NEGLIGIBLE else OPEN)
        values = "; ".join(f"{arm} {', '.join(map(number, seen))} {unit}" for arm, seen in own.items())
        sentences.append(
            f"{what}: {number(median(full) / median(rloo))} of RLOO's, {number(low)} to {number(high)} ({values})."
        )
    verdict = FAILS if FAILS in verdicts else OPEN if OPEN in verdicts else HOLDS
    return verdict, " ".join(sentences) + f" At most {NEGLIGIBLE} counts as negligible: our threshold."


def _rates(
    a: str, b: str, r: Results, against: str = "sft", controlled: bool = False, claimed: int = 1
) -> Part:
    mine, other = (win_rate(r, arm, against, controlled) for arm in (a, b))
    kind = "Length-controlled win rate" if controlled else "Win rate"
    over = " over the references" if against == "reference" else ""
    return Part(f"{kind}{over}, {_quoted(a)} − {_quoted(b)}", mine, other, claimed, SHARE, POINTS)


def _curves(what: str, metric: str, claimed: int) -> Callable[[Results], Judged]:
    """The height of a curve, R2M against RLOO."""
    return lambda r: Part(
        f"{what}, mean over all rounds, R2M − RLOO", over_rounds(r, "R2M", metric), over_rounds(r, "RLOO", metric),
        claimed,
    ).judged()  # fmt: skip


def _held_out(what: str, a: str, b: str, claimed: int) -> Callable[[Results], Judged]:
    """Two rewards of the same responses, R2M's on held-out prompts."""
    return lambda r: Part(
        f"{what}, mean over a run's evaluations", over_rounds(r, "R2M", a), over_rounds(r, "R2M", b), claimed
    ).judged()


def _correlation(view: JournalView) -> float:
    import numpy as np

    keys = ("eval/proxy", "eval/vanilla")
    points = [[m[key] for key in keys] for m in view.rounds.values() if all(key in m for key in keys)]
    if len(points) < 3 or not np.isfinite(points).all() or (np.std(points, axis=0) == 0).any():
        return math.nan
    return float(np.corrcoef(np.transpose(points))[0, 1])


def _numbers(d: Estimate, unit: str) -> str:
    p = "" if d.p is None else f", p = {number(d.p)}"
    return f"{'+' * (d.mean > 0)}{number(d.mean)}{unit} ({interval(d)}{p}, {d.n} seed{'s' * (d.n != 1)})"


def _tail(d: Estimate, found: str, claimed: int) -> str:
    if found == "not distinguishable":
        return ", not told from 0"
    if found != "too few seeds":
        return ""
    direction = "as claimed" if d.mean * claimed > 0 else "against the claim" if d.mean else "no difference"
    return f", {direction}, of too few seeds"


def _quoted(arm: str) -> str:
    """A label that would run into the sentence."""
    return f'"{arm}"' if "," in arm else arm


AGAINST_RLOO = Claim(
    "R2M has a higher win rate than RLOO", "Sec. 5.1, Table 2", lambda r: _rates("R2M", "RLOO", r).judged()
)
CLAIMS = (
    Claim("R2M has a higher win rate than the best baseline", "Sec. 5.1, Table 2", best_baseline),
    AGAINST_RLOO,
    Claim(
        "R2M has a higher length-controlled win rate than RLOO", "Sec. 5.1, Table 2",
        lambda r: _rates("R2M", "RLOO", r, controlled=True).judged(),
    ),
    Claim(
        "R2M's responses are shorter than RLOO's", "Sec. 5.1, Table 2",
        lambda r: Part(
            "Characters, R2M − RLOO", mean_of(r, "R2M", "characters"), mean_of(r, "RLOO", "characters"), -1
        ).judged(),
    ),
    Claim("Hidden states of hacking and normal responses are less similar than within either", "Sec. 3, Table 1",
          across_lower),
    Claim("With feedback the reward follows that of the frozen reward model", "Sec. 5.2, Fig. 4", trend),
    Claim("Rewards with feedback are higher than without", "Sec. 5.2, Fig. 4",
          _held_out("With feedback − without", "eval/proxy", "eval/vanilla", 1)),
    Claim("Noise in the feedback's place lowers the reward", "Sec. 5.2, Fig. 4",
          _held_out("With noise − with feedback", "eval/noise", "eval/proxy", -1)),
    Claim("R2M's reward curve is higher than RLOO's", "Sec. 5.2, Fig. 5",
          _curves("Reward in training", "reward/proxy", 1)),
    Claim("R2M's loss curve is lower than RLOO's", "Sec. 5.2, Fig. 5",
          _curves("Policy loss", "train/policy_loss", -1)),
    Claim("R2M moves further from the reference than RLOO", "Sec. 5.2, Fig. 5",
          _curves("KL per token", "kl/token", 1)),
    Claim("Untrained feedback lowers the reward model's accuracy", "Sec. 5.2, Table 3", accuracies("before", -1)),
    Claim("Trained feedback raises the reward model's accuracy", "Sec. 5.2, Table 3", accuracies("after", 1)),
    Claim("R2M prevents the collapse that RLOO has", "Sec. 5.2, Table 4, App. F.5", collapse),
    Claim("R2M with noise is worse than RLOO", "App. E, Table 5",
          lambda r: _rates("R2M, noise", "RLOO", r, claimed=-1).judged()),
    Claim("R2M without training is worse than RLOO", "App. E, Table 5",
          lambda r: _rates("R2M, no training", "RLOO", r, claimed=-1).judged()),
    Claim("R2M without BT lies between RLOO and R2M", "App. E, Table 5", between("R2M, no BT")),
    Claim("R2M without GRE lies between RLOO and R2M", "App. E, Table 5", between("R2M, no GRE")),
    Claim("R2M costs negligibly more than RLOO", "Sec. 5.3, Fig. 6", cheap),
)  # fmt: skip
