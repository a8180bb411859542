"""Settings from a recipe and `key=value` overrides."""

import json
import os
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from r2m.config.explain import explain
from r2m.config.paths import absolute, with_absolute_paths
from r2m.config.schema import Config
from r2m.config.strict_yaml import parse
from r2m.errors import UserError, shown


def recipes() -> list[str]:
    return sorted(p.name.removesuffix(".yaml") for p in resources.files("r2m.recipes").iterdir()
                  if p.name.endswith(".yaml"))  # fmt: skip


def load(recipe: str, overrides: list[str] | tuple[str, ...] = ()) -> Config:
    """A recipe's name or a YAML file, with `a.b=value` overrides. Paths, whichever recipe has them, are relative to
    the folder that this process is in, and come out absolute.

    Raises UserError, one line, for an unknown recipe, key or value.
    """
    return with_absolute_paths(validate(read_tree(recipe, overrides)))


def read_tree(recipe: str, overrides: list[str] | tuple[str, ...] = ()) -> dict[str, Any]:
    """What `load` validates: a recipe as it is written, with the overrides on top; below it its `base`, a recipe of
    ours, where it names one."""
    tree = read_mapping(recipe_path(recipe), f"recipe = {shown(recipe)}", "of sections")
    if "base" in tree:
        tree = _merged(_base_of(tree.pop("base"), recipe), tree)
    tree.setdefault("recipe", Path(recipe).stem)
    for override in overrides:
        _apply(tree, override)
    return tree


def _base_of(base: Any, recipe: str) -> dict[str, Any]:
    """The recipe of ours that another changes; one that itself has no base."""
    tree = read_mapping(recipe_path(base), "base", "of sections") if base in recipes() else {"base": None}
    if "base" in tree:
        whole = [name for name in recipes() if "base" not in read_mapping(recipe_path(name), "base", "of sections")]
        raise UserError(f"recipe = {shown(recipe)}: base = {shown(base)}: one of {', '.join(whole)} is allowed")
    return tree


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Sections key by key, whatever else as a whole."""
    both = {key: _merged(base[key], value) for key, value in changes.items()
            if isinstance(value, dict) and isinstance(base.get(key), dict)}  # fmt: skip
    return base | changes | both


def recipe_path(recipe: str) -> Path:
    """The file of a recipe, absolute."""
    if recipe in recipes():
        return Path(str(resources.files("r2m.recipes") / f"{recipe}.yaml"))
    if not recipe.endswith((".yaml", ".yml")):
        raise UserError(f"recipe = {shown(recipe)}: not one of {', '.join(recipes())}, nor a .yaml file")
    return Path(absolute(recipe))


def read_mapping(path: Path, what: str, of: str) -> dict[str, Any]:
    """A YAML file that holds a mapping. Raises UserError that begins with `what`."""
    if not os.path.isfile(path):  # a pipe or a device would be read for ever
        raise UserError(f"{what}: no such file")
    try:
        tree = parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{what}: cannot be read ({error.strerror})") from None
    except ValueError as error:  # not UTF-8, a NUL in its name, not YAML
        raise UserError(f"{what}: not valid YAML ({error})") from None
    if not isinstance(tree, dict):
        raise UserError(f"{what}: expected a mapping {of}")
    return tree


def validate(tree: dict[str, Any]) -> Config:
    """The configuration as it is in the tree. Raises UserError, one line, for a wrong key or value."""
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise UserError(explain(error, Config)) from None


def _apply(tree: dict[str, Any], override: str) -> None:
    key, sign, value = override.partition("=")
    if not sign or not key.strip():
        raise UserError(f"--set {shown(override)}: expected key=value, such as algorithm.lr=1e-5")
    if not value.strip():  # of a shell's variable that is not set, as likely as not
        raise UserError(f"--set {shown(override)}: no value; null is none, '\"\"' is empty text")
    *sections, last = key.strip().split(".")
    node = tree
    for section in sections:
        if node.get(section) is None:  # not there, or null: off
            node[section] = {}
        node = node[section]
        if not isinstance(node, dict):
            raise UserError(f"--set {shown(override)}: {section} is a value, not a section")
    try:
        node[last] = parse(value)
    except ValueError as error:
        raise UserError(f"--set {key.strip()}: {shown(value)} is not a YAML value ({error})") from None


def override(key: str, value: Any) -> str:
    """key=value as `load` takes it, from which it reads exactly this value: a number, text, a truth or None."""
    text = json.dumps(value, ensure_ascii=False)
    if isinstance(value, float):  # YAML takes 1e-05 for text, for want of a point
        digits, e, exponent = repr(value).partition("e")
        text = f"{digits}.0e{exponent}" if e and "." not in digits else repr(value)
    elif isinstance(value, str):
        with suppress(ValueError):
            text = value if parse(value) == value else text
    return f"{key}={text}"
