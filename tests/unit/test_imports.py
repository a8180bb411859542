import gc
import sys
from collections.abc import Iterator

import pytest

from r2m.imports import importing


@pytest.fixture
def thawed() -> Iterator[None]:
    gc.unfreeze()
    yield
    gc.unfreeze()


def test_a_package_is_hidden_while_others_are_imported(thawed: None) -> None:
    sys.modules.pop("wave", None)
    with importing(without=("wave",)), pytest.raises(ImportError):
        import wave
    import wave

    with importing(without=("wave",)):  # loaded before: it stays
        assert sys.modules["wave"] is wave


def test_garbage_is_not_looked_for_among_what_is_imported(thawed: None) -> None:
    with importing():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() > 0
    gc.disable()
    try:
        with importing():
            pass
        assert not gc.isenabled()  # as it was
    finally:
        gc.enable()
