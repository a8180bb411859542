"""What MLflow gives page by page."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from mlflow.store.entities import PagedList

_Item = TypeVar("_Item")


def every_page(ask: Callable[[str | None], PagedList[_Item]]) -> list[_Item]:
    """All items; `ask` is given each page's token, None for the first."""
    found: list[_Item] = []
    token = None
    while True:
        page = ask(token)
        found += page
        token = page.token
        if not token:
            return found
