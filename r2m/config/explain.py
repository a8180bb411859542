"""Mistakes in a tree of settings, as one line."""

from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from r2m.errors import shown

MOST = 5  # mistakes named at once


def explain(error: ValidationError, root: type[BaseModel]) -> str:
    """One line for all mistakes in a tree of `root`: each names the field, its value and what is allowed."""
    lines = [_line(e, root) for e in error.errors(include_url=False)]
    more = [f"and {len(lines) - MOST} more"] if len(lines) > MOST else []
    return "; ".join(lines[:MOST] + more)


def _line(error: Any, root: type[BaseModel]) -> str:
    # A discriminated union puts its tag into the path: task.forum.seed is task.seed to a user.
    path = [str(p) for i, p in enumerate(error["loc"]) if not (i == 1 and error["loc"][0] == "task")]
    name = ".".join(path)
    if error["type"] == "extra_forbidden":
        return f"{name}: unknown key; allowed: {', '.join(_siblings(error['loc'], root))}"
    if error["type"] == "missing":
        return f"{name}: missing"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":  # of a whole section: the message names the fields
        return f"{name}: {message}" if name else message
    return f"{name} = {shown(error['input'])}: {message[0].lower() + message[1:]}"


def _siblings(path: tuple[Any, ...], root: type[BaseModel]) -> list[str]:
    """The keys allowed where `path` ends."""
    node: Any = root
    for part in path[:-1]:
        if hasattr(node, "model_fields"):
            fields = {field.alias or name: field for name, field in node.model_fields.items()}
            node = fields[part].annotation
            if type(None) in get_args(node):  # a section that may be left out
                node = next(member for member in get_args(node) if member is not type(None))
        else:  # a list's or a mapping's item, or a union's member by its tag
            members = get_args(node)
            tagged = [m for m in members if hasattr(m, "model_fields") and "kind" in m.model_fields]
            node = next((m for m in tagged if m.model_fields["kind"].default == part), members[-1])
    return [field.alias or name for name, field in node.model_fields.items()]
