"""How much each parameter of a sweep matters, as a picture."""

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from r2m.reports.curves import STYLE
from r2m.reports.style import COLOURS
from r2m.results.answer import Answer


def importance_picture(answer: Answer, path: Path) -> None:
    """Bars into a PNG, the most important parameter on top; nothing where there is no importance yet."""
    if not answer.importance:
        return
    names, shares = list(answer.importance)[::-1], list(answer.importance.values())[::-1]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 1.2 + 0.4 * len(names)), layout="constrained", dpi=150)
        ax = figure.subplots()
        bars = ax.barh(names, shares, color=COLOURS["R2M"])
        ax.bar_label(bars, [f"{share:.0%}" for share in shares], padding=3)
        ax.set(xlabel="share of importance (PED-ANOVA)", xlim=(0, 1.12 * max(shares)))
        figure.savefig(path, format="png")
