"""Settings of a recipe in a step: read, checked, overridden."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from r2m.config import Config, load, override
from r2m.config.load import recipe_path, recipes
from r2m.errors import UserError


def recipe_config(recipe: str, settings: Mapping[str, Any], *extra: str) -> Config:
    """The recipe with settings by dotted key. Raises UserError."""
    return load(recipe, [*(override(key, value) for key, value in settings.items()), *extra])


def absolute_recipe(recipe: str) -> str:
    """A recipe's name, or the absolute path of a file. (pydantic's AfterValidator)"""
    with suppress(UserError):  # of one that is none: whoever loads it says so
        return recipe if recipe in recipes() else str(recipe_path(recipe))
    return recipe
