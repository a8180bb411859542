"""Cron expressions, as cronsim reads them."""

from datetime import UTC, datetime

from cronsim import CronSim, CronSimError
from pydantic_core import PydanticCustomError


def check_cron(expression: str) -> str:
    """The expression. Raises pydantic's ValueError for what is none, or never comes."""
    try:
        if len(expression.split()) != 5:  # cronsim would take a sixth, of seconds
            raise CronSimError("five fields")
        next(CronSim(expression, datetime(2026, 1, 1, tzinfo=UTC)))
    except (CronSimError, StopIteration) as error:
        why = "no such time comes within fifty years" if isinstance(error, StopIteration) else str(error).lower()
        raise PydanticCustomError(
            "cron", f"minute hour day month weekday are allowed, such as 0 3 * * * (every night at three); {why}"
        ) from None
    return expression
