"""A nightly pipeline made small, with every kind of step but the paper, and its driver's processes."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from processes import R2M, alive, command_of, descendants, has_open, kill_all, wait_for

from r2m.runs.journal import JournalReader

ROUNDS, PROMPTS = 6, 8
TASK = {"task.posts": 64, "task.sft_steps": 20}
PAIRS = TASK | {"task.preference_pairs": 64, "task.artefact": 0.25}
RUN = {
    "task.posts": 64, "task.held_out": 16, "algorithm.queries": 4, "algorithm.rounds": ROUNDS,
    "algorithm.epochs": 1, "algorithm.max_response_tokens": 8, "algorithm.microbatch": 16,
    "run.eval_queries": 8, "run.checkpoint_every": 1, "run.max_failures": 8,
    "run.device": "cpu",
}  # fmt: skip
LINGERING = ("gcs_server", "raylet", "dashboard", "ray/_private", "agent")  # Ray's: up to a minute after their driver


def write_night(folder: Path, reward: str) -> Path:
    """The file `small.yaml`, and beside it the search's, which has a reward model of its own."""
    trials = [{"reward.alpha": 0.25}, {"reward.alpha": 0.75}]
    search = {
        "recipe": "forum", "set": RUN, "parameters": {"reward.alpha": {"uniform": [0, 1]}}, "enqueue": trials,
        "objectives": [{"metric": "eval/gold"}], "budget": {"trials": 2, "evaluations": 2, "concurrent": 2},
        "baselines": {}, "seeds": [0], "confirm": [10],
    }  # fmt: skip
    (folder / "search.yaml").write_text(yaml.safe_dump(search))
    models = {"policy.model": "${sft.model}", "reward.model": "${reward.model}"}
    tree = {
        "parameters": {"artefact": 0.25},
        "retries": 3,
        "backoff_s": 0.1,
        "steps": {
            "sft": {"use": "sft", "recipe": "forum", "set": TASK},
            "reward": {
                "use": "reward-model", "recipe": "forum", "set": PAIRS | {"task.artefact": "${artefact}"},
                "policy": "${sft.model}",
            },
            "search": {
                "use": "sweep", "needs": ["reward"], "file": str(folder / "search.yaml"),
                "set": {"policy.model": "${sft.model}", "reward.model": reward},
            },
            "arms": {
                "use": "train", "recipe": "forum", "set": RUN | models, "evaluations": 2, "seeds": [0, 1],
                "arms": {"RLOO": {"reward.feedback": False}, "best": "${search.settings}"},
            },
            "assessed": {"use": "evaluate", "runs": "${arms.runs}", "prompts": PROMPTS},
            "alarm": {"use": "alarm-check", "runs": "${arms.runs}"},
            "compared": {"use": "compare", "runs": "${assessed.runs}", "baseline": "RLOO"},
            "champion": {
                "use": "promote", "comparison": "${compared.comparison}", "runs": "${arms.runs}", "arm": "best",
                "when": {"difference": {"over": "RLOO", "at_least": -10, "finding": False}, "alarm": "any"},
            },
        },
    }  # fmt: skip
    (folder / "small.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    return folder / "small.yaml"


class Night:
    """The drivers of an execution, one after another, and all processes that they have started."""

    def __init__(self, folder: Path, file: Path, storage: Path | None = None) -> None:
        self.folder, self.file, self.storage = folder, file, storage or folder / "storage"
        self.began: set[int] = set()
        self.driver: subprocess.Popen | None = None
        self.logs = 0

    def start(self, *options: str, tick: str = "2026-12-01T03:00Z", dies_at: str = "") -> None:
        program = [sys.executable, str(Path(__file__).with_name("mortal_driver.py")), dies_at] if dies_at else [R2M]
        self.logs += 1
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        command = ["pipeline", "run", str(self.file), "--tick", tick, "--storage", str(self.storage), *options]
        with open(self.log, "w") as log:
            self.driver = subprocess.Popen(
                [*program, *command], cwd=self.folder, stdout=log, stderr=log, env=environment
            )

    @property
    def log(self) -> Path:
        """Of the last driver."""
        return self.folder / f"driver-{self.logs}.txt"

    @property
    def said(self) -> str:
        return self.log.read_text()

    def until(self, what: Callable[[], Any]) -> Any:
        """What is so at last, with the driver alive; its processes are noted meanwhile."""
        found: list[Any] = []

        def look() -> bool:
            assert self.driver is not None
            self.began.update(descendants(self.driver.pid))
            found[:] = [what()]
            return bool(found[0])

        assert self.driver is not None
        wait_for(look, self.driver, self.folder)
        return found[0]

    def until_said(self, text: str) -> None:
        self.until(lambda: text in self.said)

    def step_process(self, step: str) -> int:
        assert self.driver is not None
        (pid,) = [pid for pid in descendants(self.driver.pid) if command_of(pid).rstrip().endswith(f".{step}")]
        return pid

    def pool_process(self, step: str) -> int:
        """One of those in which the step's process has its work done."""
        return next(pid for pid in descendants(self.step_process(step)) if "spawn_main" in command_of(pid))

    def at_work(self, step: str, above: int | None = None) -> dict[int, Path]:
        """Processes that are in the midst of a run of the step's, and the run's journal. `above`: the process that
        has started them, if it is not the driver."""
        assert self.driver is not None
        pids = descendants(above or self.driver.pid)
        there = self.storage.glob(f"runs/small-{step}-*/journal.jsonl")
        journals = [path for path in there if 1 < rounds(path) < ROUNDS]
        return {pid: path for path in journals for pid in pids if has_open(pid, path)}

    def kill_worker(self, step: str) -> None:
        """Of a run in its midst, which another process then goes on with."""
        pid, path = next(iter(self.until(lambda: self.at_work(step)).items()))
        before = path.read_text().count('"resume"')
        os.kill(pid, signal.SIGKILL)
        self.until(lambda: path.read_text().count('"resume"') > before)

    def kill_step(self, step: str, again: str = "attempt") -> None:
        """Its process, which the driver then starts anew."""
        count = self.said.count(f"{step}: {again}")
        os.kill(self.step_process(step), signal.SIGKILL)
        self.until(lambda: self.said.count(f"{step}: {again}") > count)

    def interrupt(self) -> None:
        """Ctrl-C."""
        assert self.driver is not None
        self.driver.send_signal(signal.SIGINT)

    def kill_driver(self) -> None:
        assert self.driver is not None
        self.began.update(descendants(self.driver.pid))
        self.driver.kill()
        self.driver.wait()
        self.assert_nothing_works_on()

    def end(self, code: int) -> str:
        """What it has said by its end, with this exit code."""
        driver = self.driver
        assert driver is not None

        def ended() -> bool:
            self.began.update(descendants(driver.pid))
            return driver.poll() is not None

        wait_for(ended, watched=self.folder)
        assert driver.returncode == code, self.said
        self.assert_nothing_works_on()
        return self.said

    def assert_nothing_works_on(self) -> None:
        """Whatever it has started ends by itself: at once what works, Ray's agents after a while."""
        wait_for(lambda: not [pid for pid in self.began if alive(pid) and not lingers(pid)], watched=self.folder)

    def clean(self) -> None:
        if self.driver is not None and self.driver.poll() is None:
            self.began.update(descendants(self.driver.pid))
            self.driver.kill()
            self.driver.wait()
        kill_all(self.began)


def lingers(pid: int) -> bool:
    return any(word in command_of(pid) for word in LINGERING) or not command_of(pid)


def rounds(path: Path) -> int:
    """The last one that a journal has."""
    return max((r["step"] for r in JournalReader(path).new_records() if r["kind"] == "round"), default=0)
