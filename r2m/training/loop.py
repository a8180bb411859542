"""What a training worker does: run Algorithm 1, keep the journal and the checkpoints.

It knows nothing of Ray: a Ray Train worker calls it, and so can a test or a Tune function.
"""

import time
from contextlib import nullcontext
from pathlib import Path

import torch

from r2m.config import Config
from r2m.models.saving import UnsavableError, told
from r2m.policy.vllm_sampler import StartEngine
from r2m.runs.folder import CHECKPOINTS, JOURNAL, PRUNED, STOP_FILE
from r2m.runs.journal import Journal, read
from r2m.training.trainer import Trainer
from r2m.workers import Workers


def run_loop(
    config: Config,
    run_dir: Path,
    models: tuple[str, str],
    workers: Workers = Workers(),  # noqa: B008
    device: torch.device | str = "cpu",
    start_engine: StartEngine | None = None,
) -> None:
    """Run, or go on with, the run in `run_dir`, whose journal has been started; rank 0 writes.

    A round goes to the journal before its checkpoint is written, so a worker killed in between replays the
    round and loses none. A diverged run is journalled as failed and not tried again: it would diverge again. So is
    one whose models could not be saved at its end, before its first round.
    """
    if torch.device(device).type == "cpu":
        torch.set_num_threads(1)  # two threads on two busy cores are slower than one
    trainer = Trainer(config, models, workers, device, start_engine)
    with Journal(run_dir / JOURNAL) if workers.rank == 0 else nullcontext() as journal:
        refused: list[str] = []
        step = trainer.restore(run_dir / CHECKPOINTS, refused.append)
        if journal is not None:
            for reason in refused:
                journal.event("checkpoint-refused", reason=reason)
            if read(journal.path).rounds:
                journal.event("resume", step=step)
        try:
            trainer.check_export(run_dir)
            step = _go_on(trainer, step, run_dir, journal)
            if step == config.algorithm.total_rounds:
                saved = "the last checkpoint has the trained weights: the models could not be saved"
                with told(saved):  # no other try would go better
                    trainer.export(run_dir)
        except (FloatingPointError, UnsavableError) as error:
            if journal is not None:
                journal.event("failed", reason=str(error))
            return
        if journal is not None and step < config.algorithm.total_rounds:
            pruned = (run_dir / STOP_FILE).read_text() == PRUNED
            journal.event(PRUNED if pruned else "stopped", step=step)
        elif journal is not None:
            journal.event("finished", step=step)


def _go_on(trainer: Trainer, step: int, run_dir: Path, journal: Journal | None) -> int:
    """Run the rounds after `step`, until the last or until asked to stop. Returns the last one's step."""
    run, T = trainer.config.run, trainer.config.algorithm.total_rounds
    for r in trainer.rounds(step + 1):
        step = r.step
        observed, samples = trainer.observe(r)
        metrics, judged = r.metrics | observed, None
        if run.eval_every and (step % run.eval_every == 0 or step == T):
            started = time.perf_counter()
            evaluated, judged = trainer.evaluate(step)
            metrics |= evaluated
            metrics["time/eval_s"] = time.perf_counter() - started
        stop = _stop_requested(run_dir, trainer.workers, trainer.policy.device)
        if journal is not None:
            for incident in trainer.incidents:
                journal.event("engine-restarted", reason=incident)
            journal.round(step, metrics)
            if judged is not None:
                journal.event("judged", step=step, scores=judged)
            if step == 1 or step % run.sample_every == 0 or step == T:
                journal.samples(step, samples)
        trainer.incidents.clear()
        if stop or step == T or step % run.checkpoint_every == 0:
            started = time.perf_counter()
            trainer.save(run_dir / CHECKPOINTS, step)
            if journal is not None:
                journal.event("checkpoint", step=step, seconds=time.perf_counter() - started)
        if stop:
            break
    return step


def _stop_requested(run_dir: Path, workers: Workers, device: torch.device | str) -> bool:
    """Whether any worker sees the stop file, so that all of them end after the same round."""
    return workers.any((run_dir / STOP_FILE).exists(), device)
