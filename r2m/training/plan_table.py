"""A plan to read."""

from rich.table import Table

from r2m.files import human
from r2m.training.duration import time_text
from r2m.training.plan import Plan


def plan_table(p: Plan) -> Table:
    """The plan as a table of two columns."""
    table = Table(title=f"Plan of {p.recipe}", show_header=False)
    spare = f", {p.left_over:,} of the budget left over" if p.left_over else ""
    table.add_row("rounds T", f"{p.rounds:,}")
    table.add_row("trajectories", f"{p.round_trajectories:,} a round, {p.trajectories:,} in all{spare}")
    if p.round_greedy:
        table.add_row("greedy responses", f"{p.round_greedy:,} a round beside these, for ReMax's baseline")
    if p.round_references:
        table.add_row("reference responses", f"{p.round_references:,} a round beside these, of the reference policy")
    table.add_row("optimiser steps", f"{p.policy_steps:,} of the policy, {p.head_steps:,} of the head")
    if p.omega_settles is not None:
        table.add_row("ω reaches Ω", f"at t* = {p.omega_settles:.1f} rounds")
    table.add_row("prompts", f"at most {p.prompt_tokens:,} tokens")
    own = f", and {p.rollout_gpus} of vLLM's own" if p.rollout_gpus else ""
    table.add_row("workers", f"{p.workers} (CPUs: {p.workers}, GPUs: {p.gpus}{own})")
    disk = f"{p.checkpoints} checkpoints of {human(p.checkpoint)} and {human(p.export)} of trained models"
    table.add_row("disk", f"{human(p.disk)}: {disk}", end_section=True)
    for part, size in p.memory.items():
        table.add_row(part, human(size))
    for phase, size in p.phases.items():
        table.add_row(f"{phase}, in turn", f"about {human(size)}")
    for part, size in p.process.items():
        table.add_row(f"{part}: libraries", f"about {human(size)}")
    table.add_row(f"{p.device.upper()} memory of each worker", f"about {human(p.peak_memory)}")
    if p.device == "gpu":
        waiting = "".join(f", {part} {human(size)}" for part, size in p.host.items())
        table.add_row("host memory of each worker", f"about {human(p.host_memory)}: the process{waiting}")
    if p.time is not None:
        table.add_row("time, a guess", f"{time_text(p.time.round * p.rounds)}: {p.time}", end_section=bool(p.notes))
    for note in p.notes:
        table.add_row("note", note)
    return table
