"""Fig. 6: what a round of RLOO and of R2M costs, each measurement in a process of its own.

The arms take turns, so that a machine that grows slower is unfair to neither. A run's own journal does not do for
memory: it has the process's peak so far, and a sweep's processes run many runs.
"""

import multiprocessing
import tempfile
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

from r2m.config import Config, validate
from r2m.stages.progress import Progress, silent

ORDER = ("RLOO", "R2M", "R2M", "RLOO")
ROUNDS = 8  # of a process; its first is left out
TIMES = ("time/sample_s", "time/annotate_s", "time/policy_s", "time/head_s")


def measure(configs: Mapping[str, Config], models: tuple[str, str], progress: Progress = silent) -> dict[str, Any]:
    """Peak memory and time by phase of a few rounds of each arm in ORDER, one process after the other.

    Args:
        configs: of "RLOO" and "R2M".
        models: their policy and reward model.

    Returns {"device", "rounds", "measurements": [{"arm", "peak_mib", "imports_mib", "round_s", "phases"}, ...]}, the
    seconds medians over rounds. peak_mib is the GPU's, or, on a CPU, the process's resident set without what its
    imports take (imports_mib).
    """
    fresh = multiprocessing.get_context("forkserver")  # of a process that has done the imports and nothing else
    fresh.set_forkserver_preload(["r2m.training.loop", "r2m.training.start"])
    measurements = []
    for i, arm in enumerate(ORDER):
        tree = short(configs[arm]).model_dump(mode="json")
        with ProcessPoolExecutor(1, mp_context=fresh) as pool:
            device, measurement = pool.submit(_measure, tree, models).result()
        measurements.append({"arm": arm, **measurement})
        progress("measuring the cost", i + 1, len(ORDER))
    return {"device": device, "rounds": ROUNDS - 1, "measurements": measurements}


def short(config: Config) -> Config:
    """A few of its rounds in one worker, without evaluations and checkpoints, but for the last round's."""
    tree = config.model_dump()
    tree["algorithm"] |= {
        "trajectories": None,
        "rounds": ROUNDS,
        "queries": config.algorithm.queries // config.run.workers,
    }
    tree["run"] |= {
        "workers": 1, "eval_every": 0, "checkpoint_every": ROUNDS, "sample_every": ROUNDS, "max_failures": 0,
    }  # fmt: skip
    return validate(tree)


def _measure(tree: dict[str, Any], models: tuple[str, str]) -> tuple[str, dict[str, Any]]:
    """In a process of its own."""
    import torch

    from r2m.runs.journal import read
    from r2m.training.loop import run_loop
    from r2m.training.plan import resolve_device
    from r2m.training.start import new_run

    torch.set_num_threads(1)
    gpu = resolve_device(validate(tree).run, torch.cuda.device_count()) == "gpu"
    device = "cuda" if gpu else "cpu"
    imports = _resident_peak_mib()
    with tempfile.TemporaryDirectory() as storage:
        tree["policy"]["model"], tree["reward"]["model"] = models
        tree["run"]["storage"] = storage
        run = new_run(validate(tree), "cost")
        run_loop(run.config, run.folder, run.models, device=device)
        rounds = list(read(run.journal).rounds.values())[1:]
    peak = rounds[-1]["memory/peak_mib"] if gpu else _resident_peak_mib() - imports
    return device, {
        "peak_mib": peak,
        "imports_mib": None if gpu else imports,
        "round_s": median(m["time/round_s"] for m in rounds),
        "phases": {key: median(m.get(key, 0.0) for m in rounds) for key in TIMES},
    }


def _resident_peak_mib() -> float:
    """Not ru_maxrss, which begins at the parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
