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
from r2m.training.lookout import Lookout
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
        lookout = None if journal is None else Lookout(config.run, run_dir, journal, step)
        try:
            trainer.check_export(run_dir)
            step = _go_on(trainer, step, run_dir, journal, lookout)
            if step == config.algorithm.total_rounds:
                saved = "the last checkpoint has the trained weights: the models could not be saved"
                with told(saved):  # no other try would go better
                    trainer.export(run_dir)
        except (FloatingPointError, UnsavableError) as error:
            if journal is not None:
                journal.event("failed", reason=str(error))
            return
        if journal is None or lookout is None:
            return
        if step == config.algorithm.total_rounds:
            journal.event("finished", step=step)
        elif lookout.stop is not None:
            journal.event(PRUNED, step=step, reason=lookout.stop)
        else:
            pruned = (run_dir / STOP_FILE).read_text() == PRUNED
            journal.event(PRUNED if pruned else "stopped", step=step)


def _go_on(
    trainer: Trainer, step: int, run_dir: Path, journal: Journal | None, lookout: Lookout | None
) -> int:  # fmt: skip
    """Run the rounds after `step`, until the last or until asked to stop. Returns the last one's step."""
    run, T = trainer.config.run, trainer.config.algorithm.total_rounds
    for r in trainer.rounds(step + 1):
        step = r.step
        observed, samples = trainer.observe(r)
        metrics, evaluation = r.metrics | observed, None
        if run.eval_every and (step % run.eval_every == 0 or step == T):
            started = time.perf_counter()
            evaluation = trainer.evaluate(step)
            metrics |= evaluation.metrics
            metrics["time/eval_s"] = time.perf_counter() - started
            if lookout is not None:
                metrics |= lookout.look(step, metrics, evaluation)
        # Whatever any worker sees ends all of them after the same round.
        stop = (run_dir / STOP_FILE).exists() or (lookout is not None and lookout.stop is not None)
        stop = trainer.workers.any(stop, trainer.policy.device)
        if journal is not None:
            for incident in trainer.incidents:
                journal.event("engine-restarted", reason=incident)
            journal.round(step, metrics)
            if lookout is not None and evaluation is not None:
                lookout.tell(step, evaluation)
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
