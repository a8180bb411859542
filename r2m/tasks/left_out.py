"""Rows of data that are not used, counted and said."""

from __future__ import annotations


class LeftOut(dict[str, int]):
    """How many rows are not used, by reason; `first` says where the first one of each is, and what it has."""

    def __init__(self, rows: int = 0) -> None:
        super().__init__()
        self.rows = rows  # in all
        self.first: dict[str, str] = {}

    def add(self, reason: str, example: str) -> None:
        self[reason] = self.get(reason, 0) + 1
        self.first.setdefault(reason, example)

    def tree(self) -> dict[str, dict[str, int | str]]:
        """For a report: reason -> rows, and the first of them."""
        return {reason: {"rows": rows, "first": self.first[reason]} for reason, rows in self.items()}

    def __str__(self) -> str:
        """One line, without an end."""
        parts = (f"{rows:,}: {reason} (first: {self.first[reason]})" for reason, rows in self.items())
        return f"{sum(self.values()):,} of {self.rows:,} rows left out: {'; '.join(parts)}"
