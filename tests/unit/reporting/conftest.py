from pathlib import Path

import pytest
from made_runs import MadeRuns


@pytest.fixture
def runs(tmp_path: Path) -> MadeRuns:
    return MadeRuns(tmp_path / "storage")
