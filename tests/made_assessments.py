"""Assessments made by hand."""

from typing import Any

from r2m.results.assessment import VERSION, Assessment, Response


def response(prompt: Any, text: str, **scores: float | None) -> Response:
    fields: dict[str, Any] = dict.fromkeys(
        ("gold", "vanilla", "proxy", "kl", "rival_gold", "rival_vanilla", "reference", "reference_gold")
    )
    return Response(prompt=prompt, response=text, tokens=1, ended=True, rival="", **fields | scores)


def assessment(*rows: Response, **fields: Any) -> Assessment:
    """Of these rows; `fields`: what else it has."""
    own = {"version": VERSION, "run": "a", "arm": "RLOO", "seed": 0, "config_hash": "c", "prompts": len(rows),
           "eval_seed": 0, "rows": list(rows), "means": {}, "win_rates": [], "reward_accuracy": [],
           "similarity": None, "over_training": None}  # fmt: skip
    return Assessment(**own | fields)
