"""Which steps may run side by side."""

import os

from r2m.pipelines.work import Kind


class Room:
    """On this machine as many steps as it has processors; one that takes all of it runs alone. On a cluster, which
    has its own processors, one that takes all of that beside those that take none of it: two that counted on the same
    processors would wait for each other."""

    def __init__(self, address: str | None) -> None:
        self._own = os.cpu_count() or 1
        self._cluster = address is not None
        self._taken: dict[str, bool] = {}  # step -> whether it takes all

    def take(self, step: str, kind: Kind) -> bool:
        """Whether there is room, which is then taken."""
        whole = sum(self._taken.values())
        small = len(self._taken) - whole
        if self._cluster:
            fits = whole == 0 if kind.whole else small < self._own
        else:
            fits = not self._taken if kind.whole else whole == 0 and small < self._own
        if fits:
            self._taken[step] = kind.whole
        return fits

    def give_back(self, step: str) -> None:
        del self._taken[step]
