"""A run's numbers as they are now, for Prometheus: gauges that the Ray agent of its node exports (docs/boards.md).

They are read from the run's journal, by the process that writes it, so the loop needs to know nothing of them. Ray
exports a gauge once for each time that it is set, and drops it 20 s later. So all are set again every few seconds,
however long a round is, and a run that has ended, or been killed, has none soon after.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from ray.util.metrics import Gauge

from r2m.config import Config
from r2m.errors import UserError
from r2m.metrics import metric
from r2m.runs.folder import JOURNAL
from r2m.runs.journal import JournalReader, tags

EVERY_S = 5.0
MIB = 2**20
RUN_TAGS = ("run", "arm", "seed")


class Taken(NamedTuple):
    """What a gauge is: the last value of a metric, times `factor`. `phase`: a further tag."""

    metric: str
    factor: float = 1.0
    phase: str = ""


# Ray puts "ray_" in front. A gauge whose metric a run does not report is not there.
SOURCES: dict[str, tuple[Taken, ...]] = {
    "r2m_proxy": (Taken("reward/proxy"),),
    "r2m_gold": (Taken("eval/gold"),),
    "r2m_win_rate": (Taken("eval/win_rate"),),
    "r2m_kl": (Taken("kl/sequence"),),
    "r2m_alarm": (Taken("alarm/on"),),
    "r2m_suspicion": (Taken("alarm/suspicion"),),
    "r2m_tokens_per_second": (
        Taken("speed/sampled_tokens_per_s", phase="sample"),
        Taken("speed/trained_tokens_per_s", phase="train"),
    ),
    "r2m_hidden_bytes": (Taken("memory/hidden_mib", MIB),),
}
OWN = {
    "r2m_checkpoint_age_seconds": (
        "Seconds since the run's last checkpoint, or since it was begun or resumed: what a crash now would cost."
    ),
    "r2m_rounds_left": "Rounds that the run has still to do.",
}


@contextmanager
def live_gauges(config: Config, folder: Path) -> Iterator[None]:
    """While inside, in a Ray worker: the gauges of the run in `folder`, by a thread of their own."""
    gauges, ended = _Gauges(config, folder), threading.Event()

    def follow() -> None:
        while not ended.wait(EVERY_S):
            gauges.refresh()

    thread = threading.Thread(target=follow, name="gauges", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        gauges.refresh()


class _Gauges:
    def __init__(self, config: Config, folder: Path) -> None:
        self._journal = JournalReader(folder / JOURNAL)
        self._rounds = self._left = config.algorithm.total_rounds
        self._saved = time.time()
        self._values: dict[str, float] = {}
        self._tags: dict[str, str] = {}
        self._gauges = {}
        for name, sources in SOURCES.items():
            phase = ("phase",) if any(source.phase for source in sources) else ()
            about = "; ".join(metric(source.metric).title for source in sources)
            self._gauges[name] = Gauge(name, _ascii(about), (*RUN_TAGS, *phase))
        self._gauges |= {name: Gauge(name, about, RUN_TAGS) for name, about in OWN.items()}

    def refresh(self) -> None:
        """Set all to what the journal says by now."""
        with suppress(OSError, UserError):  # no reason to end a run; the journal's writer meets the same
            self._read()
        if not self._tags:
            return
        for name, sources in SOURCES.items():
            for source in sources:
                if source.metric in self._values:
                    self._set(name, self._values[source.metric] * source.factor, source.phase)
        self._set("r2m_checkpoint_age_seconds", max(0.0, time.time() - self._saved))
        self._set("r2m_rounds_left", self._left)

    def _read(self) -> None:
        for record in self._journal.new_records():
            if record["kind"] == "start":
                of = tags(record)
                arm = of.get("r2m.trial", of["r2m.arm"])
                self._tags = {"run": record["run_id"], "arm": _ascii(arm), "seed": of["r2m.seed"]}
            elif record["kind"] == "round":
                self._values |= record["metrics"]
                self._left = self._rounds - record["step"]
            elif record.get("name") == "checkpoint":
                self._saved = max(self._saved, record["time"])

    def _set(self, name: str, value: float, phase: str = "") -> None:
        self._gauges[name].set(value, self._tags | ({"phase": phase} if phase else {}))


def _ascii(text: str) -> str:
    """Ray takes nothing else. Two arms stay two."""
    return text.replace("Ω", "Omega").encode("ascii", "backslashreplace").decode()
