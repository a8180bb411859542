"""Text in MLflow's descriptions, which are Markdown."""

import re
from typing import Any


def markdown(text: Any) -> str:
    """Text in which Markdown has nothing to read."""
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~])", r"\\\1", " ".join(str(text).split()))
