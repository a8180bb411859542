from pathlib import Path
from typing import Any

import pytest
from made_sweep import MadeSweep


@pytest.fixture
def made(tmp_path: Path) -> Any:
    """Makes a MadeSweep."""
    return lambda **tree: MadeSweep(tmp_path, **tree)
