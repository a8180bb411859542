"""Tables 1 to 5 from runs, each beside the paper's own figures."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml

from r2m.paper.arms import ABLATIONS, COLLAPSE, FIXED_OMEGA, METHODS
from r2m.reports.paper_formats import MEASURED, MISSING, Column, PaperCell, PaperTable
from r2m.results.experiment import PERCENT, Experiment
from r2m.results.statistics import mean_estimate
from r2m.results.table import Values, paired

PRINTED = yaml.safe_load((Path(__file__).parent / "published.yaml").read_text())  # the paper's own numbers
QWEN, LLAMA = "paper: Qwen2.5-3B, AlpacaEval 2", "paper: LLaMA3-8B, AlpacaEval 2"
TLDR, COLLAPSED = "paper: Pythia-2.8B, TL;DR", "paper: Pythia-1B, TL;DR"
ACCURACY, SIMILARITY = "paper: UltraFeedback", "paper: LLaMA3-8B, UltraFeedback"
KIND_LABELS = {"hacking": "within hacking", "normal": "within normal", "cross": "across"}
ACCURACIES = {
    "without": "without feedback",
    "before": "with feedback, before training",
    "after": "with feedback, after training",
}
ONE_MODEL = (
    "SFT is one model, measured with the same draws for every seed: its interval has no width and says nothing of "
    "chance."
)
ALONE = "Response alone: means over its tokens without the prompt's, which all responses to it share."
PERFECT = (
    "The references have all the gold that there is, and the best that a response can do is a tie: the win rate "
    "against them shows little, and the claim is judged by gold."
)
CONTROLLED = (
    "WR: win rate. LC: length-controlled, by a logistic regression on the difference in length, as AlpacaEval 2 does "
    "it. Lengths are in characters."
)


def tables(r: Experiment) -> list[PaperTable]:
    return [table_1(r), table_2(r), table_3(r), table_4(r), table_5(r)]


def judged(r: Experiment, against: str = "the supervised policy") -> str:
    """What a measured win rate is."""
    judge = "the gold program" if r.judge == "gold" else f"the {r.judge} reward model"
    return f"measured: recipe {r.recipe}, {judge} as judge, against {against}, held-out prompts"


def table_1(r: Experiment) -> PaperTable:
    why = {arm: _no_similarity(r, arm) for arm in ("RLOO", "R2M")}
    rows = [
        (f"{arm}'s trained policies{', response alone' * alone}",
         tuple(measured(r, arm, r.similarity(arm, kind, alone), 3, why=why[arm]) for kind in KIND_LABELS)
         + (PaperCell(),) * len(KIND_LABELS))
        for arm in why for alone in (False, True)
    ]  # fmt: skip
    theirs = tuple(published(PRINTED["table_1"][kind], 2) for kind in KIND_LABELS)
    rows.append(("the paper's policy", (PaperCell(),) * len(KIND_LABELS) + theirs))
    what = [
        f"{arm}, seed {seed}: {known.similarity.what}."
        for arm in why
        for seed, known in r.assessed(arm).items()
        if known.similarity
    ]
    return PaperTable(
        1, "Similarity of hidden states of hacking and normal responses",
        f"measured: recipe {r.recipe}, cosine of mean-token hidden states", "responses of",
        _columns([(MEASURED, KIND_LABELS.values()), (SIMILARITY, KIND_LABELS.values())]),
        tuple(rows), (*what[:1], ALONE),
    )  # fmt: skip


def table_2(r: Experiment) -> PaperTable:
    rows = []
    for arm in METHODS:
        cells = (
            measured(r, arm, r.win_rate(arm, controlled=True)),
            measured(r, arm, r.win_rate(arm)),
            measured(r, arm, r.mean_of(arm, "characters")),
            measured(r, arm, r.mean_of(arm, "gold"), 2),
        )
        if arm == "SFT":
            itself = PaperCell(text="50", why="by construction: it is compared with itself")
            cells = (itself, itself, *cells[2:])
        rows.append((arm, cells + _theirs(PRINTED["table_2"][arm])))
    three = ("LC, %", "WR, %", "length")
    return PaperTable(
        2, "Methods", judged(r), "method",
        _columns([(MEASURED, (*three, "gold")), (QWEN, three), (LLAMA, three),
                  (TLDR, ["WR, %"])]),
        tuple(rows), (CONTROLLED, "SFT against itself is 50 % by construction.", ONE_MODEL),
    )  # fmt: skip


def table_3(r: Experiment) -> PaperTable:
    sets = r.pair_sets("R2M") or ["held-out"]
    rows = [
        (label,
         tuple(measured(r, "R2M", r.accuracy("R2M", pairs, when)) for pairs in sets)
         + _theirs(PRINTED["table_3"][when]))
        for when, label in ACCURACIES.items()
    ]  # fmt: skip
    return PaperTable(
        3, "Accuracy of the reward model",
        f"measured: recipe {r.recipe}, the reward models of R2M's runs, %", "reward model",
        _columns([(MEASURED, sets), (ACCURACY, ("Qwen2.5-3B", "LLaMA3-8B"))]), tuple(rows),
        ("Before training, feedback has the weight that the trained model gives it (ω = Ω).",),
    )  # fmt: skip


def table_4(r: Experiment) -> PaperTable:
    rows = [
        (arm,
         (measured(r, arm, r.win_rate(arm, "reference")),
          measured(r, arm, r.mean_of(arm, "gold"), 2),
          measured(r, arm, r.mean_of(arm, "no_space_share", PERCENT), 1),
          published(PRINTED["table_4"][arm])))
        for arm in COLLAPSE
    ]  # fmt: skip
    return PaperTable(
        4, "The collapse", judged(r, "the author's references"), "method",
        _columns([(MEASURED, ("WR, %", "gold", "words without a space, %")), (COLLAPSED, ["WR, %"])]),
        tuple(rows), (PERFECT,) * (r.judge == "gold") + (ONE_MODEL,),
    )  # fmt: skip


def table_5(r: Experiment) -> PaperTable:
    rows = []
    for arm in ABLATIONS:
        cells: list[PaperCell] = []
        for of, places in (
            (lambda a: r.win_rate(a, controlled=True), 1), (r.win_rate, 1), (lambda a: r.mean_of(a, "gold"), 2)
        ):  # fmt: skip
            mine, full = of(arm), of("R2M")
            change = PaperCell() if arm == "R2M" else delta(r, arm, mine, full, places)
            cells += [measured(r, arm, mine, places), change]
        cells.append(measured(r, arm, r.mean_of(arm, "characters")))
        rows.append((arm, (*cells, *_theirs(PRINTED["table_5"].get(arm, (None,) * 5)))))
    theirs = ("LC, %", "Δ", "WR, %", "Δ", "length")
    return PaperTable(
        5, "Ablations", judged(r), "method",
        _columns([(MEASURED, ("LC, %", "Δ", "WR, %", "Δ", "gold", "Δ", "length")), (LLAMA, theirs)]),
        tuple(rows),
        ("Δ: minus R2M on the same seeds; better or worse where five seeds or more show it.",
         f"\"R2M, fixed omega\" (ω = Ω = {FIXED_OMEGA} in every round) is not in the paper.", CONTROLLED),
    )  # fmt: skip


def measured(r: Experiment, arm: str, values: Values, places: int = 1, why: str = "") -> PaperCell:
    """The mean over an arm's runs; `why`: what to say where no run has a value."""
    if not values:
        return PaperCell(MISSING, why=why or _absent(r, arm))
    estimate = mean_estimate(list(values.values()))
    return PaperCell(estimate=estimate, places=places, runs=r.run_ids(arm, values))


def delta(r: Experiment, arm: str, values: Values, other: Values, places: int) -> PaperCell:
    """The paired difference values - other over the seeds that both have, and what it shows."""
    d = paired(values, other)
    if d is None:
        return PaperCell(MISSING, why="no seed that both arms have")
    runs = r.run_ids(arm, {seed: values[seed] for seed in d.seeds})
    return PaperCell(estimate=d.estimate, places=places, runs=runs, finding=d.estimate.finding)


def published(value: float | None, places: int = 1) -> PaperCell:
    return PaperCell() if value is None else PaperCell(text=f"{value:.{places}f}".replace("-", "−"))


def _absent(r: Experiment, arm: str) -> str:
    """Why an arm has no number at all, or not this one."""
    if not r.views(arm):
        return f"no run of {arm} has finished"
    if not r.assessed(arm):
        return f"no run of {arm} is assessed"
    return "its assessments do not have it"


def _theirs(row: tuple[float | None, ...]) -> tuple[PaperCell, ...]:
    return tuple(published(value, 0 if isinstance(value, int) else 1) for value in row)


def _columns(groups: Sequence[tuple[str, Iterable[str]]]) -> tuple[Column, ...]:
    return tuple(Column(source, heading) for source, headings in groups for heading in headings)


def _no_similarity(r: Experiment, arm: str) -> str:
    return f"no run of {arm} has prompts with enough hacking and enough normal responses" * bool(r.assessed(arm))
