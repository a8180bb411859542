"""Journals, and what a SQLite store has of them."""

from mlflow import MlflowClient

from r2m.runs.journal import Journal

CONFIG = {"reward": {"feedback": True, "lr": 1e-4}, "algorithm": {"advantage": "rloo"}, "task": {"seed": 0}}
EXPERIMENT = "r2m/forum/sft"


def started(run_dir, config=CONFIG, datasets=(), **sweep):
    journal = Journal(run_dir / "journal.jsonl")
    journal.start(
        run_id=run_dir.name,
        task="forum",
        policy="sft",
        config=config,
        versions={"r2m": "0.1.0"},
        git={"commit": "c0ffee", "dirty": False},
        config_hash="abc",
        data_hash="def",
        datasets=list(datasets),
        **sweep,
    )
    return journal


def mlflow_runs(uri, run_id, experiment=EXPERIMENT):
    client = MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    return client.search_runs([found.experiment_id], f"tags.`r2m.run_id` = '{run_id}'")


def points(uri, run_id, key, experiment=EXPERIMENT):
    """(step, value) of every point that MLflow has, duplicates included."""
    (run,) = mlflow_runs(uri, run_id, experiment)
    history = MlflowClient(uri).get_metric_history(run.info.run_id, key)
    return sorted((point.step, point.value) for point in history)
