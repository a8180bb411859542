"""What a setting may be: numbers with limits, names, places."""

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticCustomError("number", "Input should be a number, not true or false")
    return value


def _in_range(value: float) -> float:
    if value and not 1e-30 <= abs(value) <= 1e30:  # in 32 bits it would come to 0 or overflow
        raise PydanticCustomError("range", "Input should be 0, or of a size from 1e-30 to 1e30")
    return value


def _printable(text: str) -> str:
    if not text.replace("\n", "").replace("\t", "").isprintable():
        raise PydanticCustomError("printable", "Input should be printable text")
    return text


def printable_path(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise PydanticCustomError("path", "Input should be a name, of printable characters")
    if len(text.encode()) > 3000 or max(len(part.encode()) for part in text.split("/")) > 255:
        raise PydanticCustomError("path", "No name of a file may be longer than 255 bytes, no path than 3000")
    return text


# What takes a number takes no true. Limits are wide: no run has a use for what is beyond them.
Int = Annotated[int, BeforeValidator(_number)]
Number = Annotated[float, BeforeValidator(_number), AfterValidator(_in_range)]
Share = Annotated[Number, Field(ge=0, le=1)]
Positive = Annotated[Number, Field(gt=0)]
Count = Annotated[Int, Field(ge=1, le=2**31 - 1)]
Whole = Annotated[Int, Field(ge=0, le=2**31 - 1)]
RowCount = Annotated[Count, Field(le=10_000_000)]  # that are made
Seed = Annotated[Int, Field(ge=0, le=2**32 - 1)]
PlainText = Annotated[str, StringConstraints(max_length=10_000), AfterValidator(_printable)]
Name = Annotated[PlainText, StringConstraints(min_length=1, max_length=200)]
# One name may stand alone.
Names = Annotated[
    tuple[Name, ...],
    BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
    Field(min_length=1, max_length=100),
]
# A folder or file, or an id on the hub: see r2m.config.paths.
Place = Annotated[str, AfterValidator(printable_path)]
