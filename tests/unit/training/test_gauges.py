"""The gauges, as the board and its document have them; tests/integration/test_boards.py has them exported."""

import json
import re
from pathlib import Path

from r2m.training.gauges import OWN, SOURCES

ROOT = Path(__file__).parents[3]


def test_the_document_lists_them_all_with_their_metrics() -> None:
    rows = re.findall(r"^\| `ray_(r2m_\w+)` \| (.*) \|$", (ROOT / "docs" / "boards.md").read_text(), re.MULTILINE)
    listed = {name: set(re.findall(r"`(\w+/\w+)`", about)) for name, about in rows}
    assert listed == {n: {s.metric for s in sources} for n, sources in SOURCES.items()} | {n: set() for n in OWN}


def test_the_board_draws_them_all_and_the_alerts_know_no_other() -> None:
    folder = ROOT / "dashboards" / "grafana"
    panels = json.loads((folder / "r2m.json").read_text())["panels"]
    drawn = [target["expr"] for panel in panels for target in panel["targets"]]
    assert gauges(" ".join(drawn)) == {*SOURCES, *OWN}
    assert gauges((folder / "r2m_alerts.yml").read_text()) <= {*SOURCES, *OWN}
    assert len({panel["id"] for panel in panels}) == len(panels)


def gauges(text: str) -> set[str]:
    return set(re.findall(r"\bray_(r2m_\w+)", text))
