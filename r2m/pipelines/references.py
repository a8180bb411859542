"""References in a tree of settings: `${name}` is a parameter, `${step.output}` another step's output.

A text that is one reference and nothing else becomes its value, of whatever type; within a longer text it is written
out. `$$` is a dollar sign.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

from r2m.errors import UserError, shown

_PART = re.compile(r"\$\$|\$\{([^{}]*)\}|\$")
_NAMED = re.compile(r"\s*([A-Za-z_]\w*)(?:\.([A-Za-z_]\w*))?\s*", re.ASCII)
Resolver = Callable[[str, str | None], Any]  # a parameter's name and None, or a step's and its output's


def references(tree: Any, at: str) -> Iterator[tuple[str, str | None, str]]:
    """(name, output or None, where) of all references in the tree, whose place in the file is `at`.

    Raises UserError for what is none.
    """
    for where, text in _texts(tree, at):
        for part in _PART.finditer(text):
            if part[0] != "$$":
                yield *_named(part, where, text), where


def resolved(tree: Any, at: str, of: Resolver) -> Any:
    """The tree with the values that `of` gives in the places of references."""
    if isinstance(tree, dict):
        return {key: resolved(value, f"{at}.{key}", of) for key, value in tree.items()}
    if isinstance(tree, list):
        return [resolved(value, f"{at}.{i}", of) for i, value in enumerate(tree)]
    if not isinstance(tree, str):
        return tree
    if (whole := _PART.fullmatch(tree)) and whole[0] != "$$":
        return of(*_named(whole, at, tree))

    def written(part: re.Match[str]) -> str:
        if part[0] == "$$":
            return "$"
        value = of(*_named(part, at, tree))
        if isinstance(value, dict | list):
            raise UserError(f"{at} = {shown(tree)}: {part[0]} is a list or a mapping, which no text can hold")
        return str(value)

    return _PART.sub(written, tree)


def _named(part: re.Match[str], at: str, text: str) -> tuple[str, str | None]:
    named = _NAMED.fullmatch(part[1] or "")
    if named is None:
        raise UserError(
            f"{at} = {shown(text)}: ${{parameter}} and ${{step.output}} are allowed, and $$ for a dollar sign"
        )
    return named[1], named[2]


def _texts(tree: Any, at: str) -> Iterator[tuple[str, str]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _texts(value, f"{at}.{key}")
    elif isinstance(tree, list):
        for i, value in enumerate(tree):
            yield from _texts(value, f"{at}.{i}")
    elif isinstance(tree, str):
        yield at, tree
