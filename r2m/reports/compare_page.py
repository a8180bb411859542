"""`r2m compare` as one self-contained HTML file: for each setup the answer, the numbers, the curves, the texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import cycle

from r2m.reports import page
from r2m.reports.curves import COLOURS, OTHER_COLOURS
from r2m.reports.figures import Group, curves, rewards_over_kl
from r2m.results.comparison import COLUMNS, SECONDS, Comparison, Difference, Row
from r2m.results.comparison_text import sentences, word
from r2m.results.findings import METHOD
from r2m.results.numbers import decimals, estimate_cells
from r2m.results.readings import KL
from r2m.results.statistics import Estimate
from r2m.results.table import Arm
from r2m.results.texts import Text, picks, texts_of

DRAWN = 12  # arms in the figures
READ = 6  # arms whose texts are shown
HEADINGS = {  # of COLUMNS: phase above, name below
    "eval/gold": "gold",
    "eval/win_rate": "win rate",
    "eval/vanilla": "frozen",
    KL: "KL, nats",
    "eval/response_tokens": "tokens",
    SECONDS: "worker s",
}
PLACES = {KL: 2, "eval/response_tokens": 2, SECONDS: 1}  # decimals: 3 of the others
TRAINING = ("reward/gold", "reward/vanilla", "reward/proxy", "kl/sequence")
HELD_OUT = ("eval/gold", "eval/vanilla", "eval/win_rate", KL)
REWARDS = ("reward/proxy", "reward/vanilla", "reward/gold")  # over KL: the paper's reward is the proxy


def html(title: str, comparisons: Sequence[Comparison], notes: Sequence[str]) -> str:
    """One file that needs no network. `notes`: sentences on what was left out."""
    several = len(comparisons) > 1
    parts = [f"<h1>{page.said(title)}</h1>", *(page.note(page.said(n)) for n in notes)]
    if several:
        parts.append(page.contents({f"setup-{i}": page.said(c.setup) for i, c in enumerate(comparisons)}))
    for i, c in enumerate(comparisons):
        inner = _setup(i, c)
        parts.append(page.section(f"setup-{i}", page.said(c.setup), *inner))
    return page.page(f"{page.said(title)} · R2M", *parts)


def status(row: Row) -> str:
    """How many runs, and how far those have come that have not finished."""
    counts = Counter(view.status for view in row.arm.runs)
    said = [
        f"{n} {name}" + (f" at {_rounds(row.arm, name)}" if name != "finished" else "")
        for name, n in sorted(counts.items())
    ]
    return ", ".join(said)


def seeds(arm: Arm) -> str:
    return ", ".join(map(str, arm.results))


def what(d: Difference) -> str:
    return f"{HEADINGS[d.metric]} at {'same KL' if d.matched else 'end'}"


def estimate(metric: str, e: Estimate | None, fewer: int = 0) -> tuple[str, str]:
    """Mean and interval, "" for none, with the decimals of their column. `fewer`: decimals than usual."""
    if e is None:
        return "–", ""
    places = PLACES.get(metric, 3) - fewer
    mean, *ends = (
        f"{round(x, places) + 0.0:,.{places}f}".replace("-", "−") for x in (e.mean, *(e.interval or ()))
    )
    return mean, " to ".join(ends)


def _rounds(arm: Arm, state: str) -> str:
    rounds = [len(view.rounds) for view in arm.runs if view.status == state]
    low, high = min(rounds), max(rounds)
    return f"round {low}" if low == high else f"rounds {low} to {high}"


def _setup(number: int, c: Comparison) -> list[str]:
    found = {d.finding for d in c.differences if d.metric == c.metric and not d.matched}
    colour = found.pop() if found in ({"better"}, {"worse"}) else ""
    groups = _groups(c)
    labels = _labels(c, groups)
    few = f" The first {DRAWN} arms of the table." if len(c.rows) > DRAWN else ""
    return [
        page.verdict(sentences(c), colour),
        *_means(c, labels),
        *_differences(c, labels),
        page.plot(f"training-{number}", "In training", curves(groups, TRAINING, columns=2),
                  f"On training prompts. Thin: a seed. Bold: their mean, where all of them have a round.{few}"),
        page.plot(f"held-out-{number}", "On held-out prompts", curves(groups, HELD_OUT, columns=2),
                  "The same draws for every run. The frozen reward that rises while gold falls is reward hacking."),
        page.plot(f"reward-kl-{number}", "Reward over KL", rewards_over_kl(groups, REWARDS),
                  "A point is a training round. The proxy of an arm with feedback is a scale of its own."),
        "<h3>Texts</h3>",
        *_texts(c),
    ]  # fmt: skip


def _groups(c: Comparison) -> list[Group]:
    """The first arm of the paper's two kinds has the colour of the run pictures; dashed from the seventh on."""
    free, others = dict(COLOURS), cycle(OTHER_COLOURS)
    groups = []
    for i, row in enumerate(c.rows[:DRAWN]):
        colour = free.pop(row.arm.kind, None) or next(others)
        dash = "solid" if i < len(COLOURS) + len(OTHER_COLOURS) else "dash"
        groups.append(Group(row.arm.label, colour, row.arm.runs, dash))
    return groups


def _labels(c: Comparison, groups: Sequence[Group]) -> dict[str, str]:
    """Of the arms, with the colours that their lines have."""
    dots = {group.label: page.dot(group.colour, ring=group.dash != "solid") for group in groups}
    labels = [row.arm.label for row in c.rows]
    return {label: f'<div class="label">{dots.get(label, "")}{page.said(label)}</div>' for label in labels}


def _means(c: Comparison, labels: Mapping[str, str]) -> list[str]:
    shown = [key for key in (*COLUMNS, SECONDS) if any(key in row.values for row in c.rows)]
    gain = [c.metric] if c.metric and any(c.metric in row.gain for row in c.rows) else []
    head = [
        "arm",
        "runs",
        *map(HEADINGS.__getitem__, shown),
        *(f"change of<br>{HEADINGS[key]}" for key in gain),
    ]
    rows = []
    for row in c.rows:
        estimates = [estimate(key, row.values.get(key)) for key in shown]
        estimates += [estimate(key, row.gain.get(key)) for key in gain]
        ran = status(row), f"seed{'s' * (len(row.arm.runs) > 1)} {seeds(row.arm)}"
        cells = [f"{first}<small>{below}</small>" if below else first for first, below in (ran, *estimates)]
        rows.append(("dim" if row.so_far else "", [labels[row.arm.label], *cells]))
    note = (
        "Each run's last evaluation, and what it changed since the first: mean over the seeds of finished runs, its "
        "95 % interval below. Grey: none has finished, as far as they have come. Worker s: seconds of a run, times "
        "its workers."
    )
    return [page.table(head, rows, {0, 1}), page.note(note)]


def _differences(c: Comparison, labels: Mapping[str, str]) -> list[str]:
    if not c.differences:
        return []
    head = [f"against {page.said(c.baseline)}", "what", "pairs", "mean difference", "95 % interval", "p", "finding",
            "its KL", "baseline's KL"]  # fmt: skip
    rows = []
    for row in c.rows:
        mine = [d for d in c.differences if d.arm == row.arm.label]
        for i, d in enumerate(mine):
            finding = f'<span class="{d.finding}">{word(d.metric, d.finding)}</span>'
            cells = [what(d), str(d.estimate.n), *estimate_cells(d.estimate), finding]
            cells += [decimals(value, 2) for value in d.kl]
            rows.append(("" if d is mine[-1] else "more", ["" if i else labels[d.arm], *cells]))
    note = (
        "Difference: arm minus baseline on the same seed. The same KL: where both runs first reach the largest "
        f"held-out KL that both of them reach, interpolated between evaluations. {METHOD}"
    )
    return [page.table(head, rows, {0, 1, 6}), page.note(note)]


def _texts(c: Comparison) -> list[str]:
    parts: list[str] = []
    for row in c.rows[:READ]:
        tables = [
            f"<p><b>{title}</b></p>{_table(chosen)}" for title, chosen in picks(texts_of(row.arm)).items()
        ]
        inner = "".join(tables) or page.note("No texts in its journals yet (run.sample_every).")
        parts.append(
            f"<details{' open' * (not parts)}><summary>{page.said(row.arm.label)}</summary>{inner}</details>"
        )
    few = f" The first {READ} arms of the table." if len(c.rows) > READ else ""
    note = (
        "Of the samples in the runs' journals and, of runs that r2m evaluate has assessed, of held-out prompts. Gap: "
        "proxy less gold, each in standard deviations over the arm's texts." + few
    )
    return [page.note(note), *parts]


def _table(texts: Sequence[Text]) -> str:
    head = ["prompt", "response", "proxy", "frozen", "gold", "gap", "run", "round"]
    rows = [
        ("", [
            f'<div class="said">{page.said(t.prompt)}</div>', f'<div class="said">{page.said(t.response)}</div>',
            *(decimals(value, 2) for value in (t.proxy, t.vanilla, t.gold, t.gap)), page.said(t.run),
            "end" if t.round is None else str(t.round),
        ])
        for t in texts
    ]  # fmt: skip
    return page.table(head, rows, {0, 1, 6})
