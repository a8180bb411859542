"""The process of a step, seen from the one that started it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from r2m.errors import one_line
from r2m.files import removed, write_whole
from r2m.pipelines.child import INPUT_WRONG, REASON, STOPPED, TASK

LOG = "log.txt"
TOLD_EVERY_S = 5.0  # between two lines that say how far a phase is


class Process:
    """It ends when this process does, however that ends: it holds the other end of its stdin."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes]) -> None:
        self._folder, self._process = folder, process
        self._rest = b""
        self._said: dict[str, float] = {}  # phase -> when it was told of last
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)

    def news(self) -> Iterator[str]:
        """How far its phases are: the first and the last of each, and what comes between now and then."""
        assert self._process.stdout is not None
        self._rest += self._process.stdout.read() or b""
        *lines, self._rest = self._rest.split(b"\n")
        latest = {}
        for line in lines:
            phase, done, total = json.loads(line)
            latest[phase] = (done, total)
        for phase, (done, total) in latest.items():
            if done == total or time.monotonic() - self._said.get(phase, -TOLD_EVERY_S) >= TOLD_EVERY_S:
                self._said[phase] = time.monotonic()
                yield f"{phase} {done:,}/{total:,}"

    def code(self) -> int | None:
        return self._process.poll()

    def stopped(self, code: int) -> bool:
        return code in (STOPPED, -signal.SIGINT)

    def by_input(self, code: int) -> bool:
        return code == INPUT_WRONG

    def reason(self, code: int) -> str:
        """The line that says why it failed."""
        try:
            return one_line((self._folder / REASON).read_text(encoding="utf-8"))
        except OSError:
            how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
            return f"its process ended: {how}; {self._folder / LOG} has what it said"

    def stop(self, at_once: bool) -> None:
        number = signal.SIGKILL if at_once else signal.SIGINT
        if self._process.poll() is None:
            os.kill(self._process.pid, number)


def start_process(folder: Path, task: dict[str, Any]) -> Process:
    write_whole(folder / TASK, json.dumps(task, indent=1))
    removed(folder / REASON)
    command = [sys.executable, "-m", "r2m.pipelines.child", str(folder)]
    environment = {"OMP_NUM_THREADS": "1"} | os.environ
    with open(folder / LOG, "ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
    return Process(folder, process)
