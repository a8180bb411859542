"""The paper's claims, each with its source, and what these runs say of it.

A claim about a difference holds where Estimate.finding calls it better in the claimed direction, and does not where
that calls it worse. With fewer than five seeds, or a difference that cannot be told from 0, it cannot be judged: that
nothing was seen does not show that there is nothing.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from r2m.paper.arms import METHODS
from r2m.reports.paper_formats import capital
from r2m.reports.paper_page import FAILS, HOLDS, OPEN, Judged
from r2m.results.experiment import NEGLIGIBLE, Experiment
from r2m.results.numbers import interval, number
from r2m.results.table import Paired, Values, paired, values
from r2m.runs.journal import JournalView

_POINTS = " points"  # of per cent

Said = tuple[str, str]  # HOLDS, FAILS or OPEN, and the sentence that says why


@dataclass(frozen=True)
class Contrast:
    """a - b over the seeds that both have, named, and the sign that the claim gives it."""

    what: str
    a: Values
    b: Values
    claimed: int = 1
    unit: str = ""

    def judged(self) -> Said:
        d = paired(self.a, self.b)
        if d is None:
            return OPEN, f"{self.what}: no two runs of one seed have it."
        verdict = OPEN
        if (found := d.estimate.finding) in ("better", "worse"):
            verdict = HOLDS if (found == "better") == (self.claimed > 0) else FAILS
        return verdict, f"{self.what}: {_numbers(d, self.unit, self.claimed)}."


Contrasting = Callable[[Experiment], Contrast]
Judging = Callable[[Experiment], Contrast | Said]


def judge_all(r: Experiment) -> list[Judged]:
    found = []
    for text, source, judge in CLAIMS:
        said = judge(r)
        verdict, why = said.judged() if isinstance(said, Contrast) else said
        found.append(Judged(text, source, verdict, why, judge is HEADLINE))
    return found


def all_of(*parts: Contrast) -> Said:
    """A claim of several parts: it fails by any of them, and holds by all."""
    verdicts, sentences = zip(*(each.judged() for each in parts), strict=True)
    return _together(verdicts), " ".join(sentences)


def _together(verdicts: Sequence[str]) -> str:
    return FAILS if FAILS in verdicts else OPEN if OPEN in verdicts else HOLDS


def best_baseline(r: Experiment) -> Said:
    rates_of = {arm: r.win_rate(arm) for arm in METHODS if arm != "R2M"}
    heights = {arm: fmean(found.values()) for arm, found in rates_of.items() if found}
    if not heights:
        return OPEN, "No baseline is assessed."
    best = max(heights, key=lambda arm: heights[arm])
    verdict, sentence = _rates("R2M", best)(r).judged()
    absent = ", ".join(arm for arm in rates_of if arm not in heights)
    return verdict, f"The best baseline is {best}. {sentence}" + f" Not there: {absent}." * bool(absent)


def accuracies(when: str, claimed: int) -> Judging:
    """By the first set of pairs; the others are said beside it."""

    def judge(r: Experiment) -> Said:
        found = [
            Contrast(f"{capital(pairs)}, {when} − without feedback", r.accuracy("R2M", pairs, when),
                 r.accuracy("R2M", pairs, "without"), claimed, _POINTS).judged()
            for pairs in r.pair_sets("R2M")
        ]  # fmt: skip
        if not found:
            return OPEN, "No run of R2M is assessed."
        return found[0][0], " Beside it: ".join(sentence for _, sentence in found)

    return judge


def collapse(r: Experiment) -> Said:
    """By gold, where the task has it: on the embedded task its references have all of it, and nobody wins against
    them. Whether RLOO collapses comes first: where it does not, there is nothing to prevent."""
    gold = r.mean_of("RLOO", "gold")

    def compared(a: str, b: str, claimed: int) -> Contrast:
        return (_means("Gold", "gold", claimed, a, b) if gold else _rates(a, b, claimed, "reference"))(r)

    collapses, said = compared("RLOO", "SFT", -1).judged()
    if collapses != HOLDS:
        return OPEN, f"That RLOO collapses is not shown. {said}"
    verdict, sentence = all_of(compared("R2M", "SFT", 1), compared("R2M", "RLOO", 1))
    return verdict, f"{said} {sentence}"


def between(arm: str) -> Judging:
    return lambda r: all_of(_rates(arm, "RLOO")(r), _rates(arm, "R2M", -1)(r))


def across_lower(r: Experiment) -> Said:
    across = r.similarity("RLOO", "cross")
    return all_of(*(Contrast(f"RLOO's runs, across − within {kind}", across, r.similarity("RLOO", kind), -1)
                    for kind in ("hacking", "normal")))  # fmt: skip


def trend(r: Experiment) -> Contrast:
    """Pearson's r over a run's evaluations, against no correlation."""
    found = values(r.views("R2M"), _correlation)
    return Contrast("Pearson's r of both over a run's evaluations", found, dict.fromkeys(found, 0.0))


def cheap(r: Experiment) -> Said:
    """By the least and the greatest ratio that the repetitions allow."""
    if r.cost is None:
        return OPEN, "The cost has not been measured."
    sentences, verdicts = [], []
    for what, key, unit in (("Time of a round", "round_s", "s"), ("Peak memory", "peak_mib", "MiB")):
        own = {arm: [m[key] for m in r.cost["measurements"] if m["arm"] == arm] for arm in ("RLOO", "R2M")}
        rloo, full = own.values()
        low, high = min(full) / max(rloo), max(full) / min(rloo)
        verdicts.append(HOLDS if high <= NEGLIGIBLE else FAILS if low > NEGLIGIBLE else OPEN)
        numbers = "; ".join(f"{arm} {', '.join(map(number, seen))} {unit}" for arm, seen in own.items())
        sentences.append(
            f"{what}: {number(median(full) / median(rloo))} of RLOO's, {number(low)} to {number(high)} ({numbers})."
        )
    sentences.append(f"At most {NEGLIGIBLE} counts as negligible: our threshold.")
    return _together(verdicts), " ".join(sentences)


def _rates(a: str, b: str, claimed: int = 1, against: str = "sft", controlled: bool = False) -> Contrasting:
    kind = "Length-controlled win rate" if controlled else "Win rate"
    what = f"{kind}{' over the references' * (against == 'reference')}, {_quoted(a)} − {_quoted(b)}"

    def judge(r: Experiment) -> Contrast:
        mine, other = (r.win_rate(arm, against, controlled) for arm in (a, b))
        return Contrast(what, mine, other, claimed, _POINTS)

    return judge


def _means(what: str, key: str, claimed: int, a: str = "R2M", b: str = "RLOO") -> Contrasting:
    return lambda r: Contrast(f"{what}, {a} − {b}", r.mean_of(a, key), r.mean_of(b, key), claimed)


def _curves(what: str, metric: str, claimed: int) -> Contrasting:
    """The height of a curve, R2M against RLOO."""
    named = f"{what}, mean over all rounds, R2M − RLOO"
    return lambda r: Contrast(named, r.over_rounds("R2M", metric), r.over_rounds("RLOO", metric), claimed)


def _held_out(what: str, a: str, b: str, claimed: int) -> Contrasting:
    """Two rewards of the same responses, R2M's on held-out prompts."""
    named = f"{what}, mean over a run's evaluations"
    return lambda r: Contrast(named, r.over_rounds("R2M", a), r.over_rounds("R2M", b), claimed)


def _correlation(view: JournalView) -> float:
    import numpy as np

    keys = ("eval/proxy", "eval/vanilla")
    points = [[m[key] for key in keys] for m in view.rounds.values() if all(key in m for key in keys)]
    if len(points) < 3 or not np.isfinite(points).all() or (np.std(points, axis=0) == 0).any():
        return math.nan
    return float(np.corrcoef(np.transpose(points))[0, 1])


def _numbers(d: Paired, unit: str, claimed: int) -> str:
    e = d.estimate
    p = "" if e.p is None else f", p = {number(e.p)}"
    tail = ", not told from 0" * (e.finding == "not distinguishable")
    if e.finding == "too few seeds":
        direction = "as claimed" if e.mean * claimed > 0 else "against the claim" if e.mean else "no difference"
        tail = f", {direction}, of too few seeds"
    return f"{'+' * (e.mean > 0)}{number(e.mean)}{unit} ({interval(e)}{p}, {e.n} seed{'s' * (e.n != 1)}){tail}"


def _quoted(arm: str) -> str:
    """A label that would run into the sentence."""
    return f'"{arm}"' if "," in arm else arm


HEADLINE = _rates("R2M", "RLOO")
CLAIMS: tuple[tuple[str, str, Judging], ...] = (  # what is claimed, where, and what judges it
    ("R2M has a higher win rate than the best baseline", "Sec. 5.1, Table 2", best_baseline),
    ("R2M has a higher win rate than RLOO", "Sec. 5.1, Table 2", HEADLINE),
    ("R2M has a higher length-controlled win rate than RLOO", "Sec. 5.1, Table 2",
     _rates("R2M", "RLOO", controlled=True)),
    ("R2M's responses are shorter than RLOO's", "Sec. 5.1, Table 2", _means("Characters", "characters", -1)),
    ("Hidden states of hacking and normal responses are less similar than within either", "Sec. 3, Table 1",
     across_lower),
    ("With feedback the reward follows that of the vanilla reward model", "Sec. 5.2, Fig. 4", trend),
    ("Rewards with feedback are higher than without", "Sec. 5.2, Fig. 4",
     _held_out("With feedback − without", "eval/proxy", "eval/vanilla", 1)),
    ("Noise in the feedback's place lowers the reward", "Sec. 5.2, Fig. 4",
     _held_out("With noise − with feedback", "eval/noise", "eval/proxy", -1)),
    ("R2M's reward curve is higher than RLOO's", "Sec. 5.2, Fig. 5",
     _curves("Reward in training", "reward/proxy", 1)),
    ("R2M's loss curve is lower than RLOO's", "Sec. 5.2, Fig. 5", _curves("Policy loss", "train/policy_loss", -1)),
    ("R2M moves further from the reference than RLOO", "Sec. 5.2, Fig. 5", _curves("KL per token", "kl/token", 1)),
    ("Untrained feedback lowers the reward model's accuracy", "Sec. 5.2, Table 3", accuracies("before", -1)),
    ("Trained feedback raises the reward model's accuracy", "Sec. 5.2, Table 3", accuracies("after", 1)),
    ("R2M prevents the collapse that RLOO has", "Sec. 5.2, Table 4, App. F.5", collapse),
    ("R2M with noise is worse than RLOO", "App. E, Table 5", _rates("R2M, noise", "RLOO", -1)),
    ("R2M without training is worse than RLOO", "App. E, Table 5", _rates("R2M, no training", "RLOO", -1)),
    ("R2M without BT lies between RLOO and R2M", "App. E, Table 5", between("R2M, no BT")),
    ("R2M without GRE lies between RLOO and R2M", "App. E, Table 5", between("R2M, no GRE")),
    ("R2M costs negligibly more than RLOO", "Sec. 5.3, Fig. 6", cheap),
)  # fmt: skip
