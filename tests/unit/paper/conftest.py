from pathlib import Path

import pytest
from made_paper import MadePaper


@pytest.fixture
def made(tmp_path: Path) -> MadePaper:
    return MadePaper(tmp_path)
