"""Whatever is typed: a valid plan, or one line, exit code 2 and nothing left behind. See settings_fuzz."""

import os
from pathlib import Path

import pytest
from settings_fuzz import CASES, Ground, search

EXAMPLES = {"train": 500, "sweep": 500, "model": 150}  # half a minute to a minute


@pytest.fixture
def ground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ground:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return Ground(tmp_path)


@pytest.mark.parametrize("what", sorted(CASES))
def test_a_plan_or_one_line(ground: Ground, what: str) -> None:
    search(ground, what, int(os.environ.get("R2M_FUZZ_EXAMPLES", EXAMPLES[what])))
