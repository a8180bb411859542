"""Prompts, completions and preference pairs from rows in TRL's column formats, plain or conversational.

A plain value is text; a conversational one is a list of {"role", "content"} messages. Prompts may be implicit:
`chosen` and `rejected` are then whole texts or conversations that begin with the same prompt. What other forms are
read is in r2m.tasks.messages.

A row that cannot be used is left out and counted, with the first of its kind named by file and place, as long as at
most a tenth of the rows are such; else the data are refused.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from r2m.errors import UserError
from r2m.tasks.files import Row, Rows, listed
from r2m.tasks.messages import RowError, messages_of, template_options, text, trl_columns, trl_row, without_nulls
from r2m.tasks.prompt import Prompt
from r2m.tasks.shared_prompt import DIFFER, UNANSWERED, split_shared
from r2m.tasks.task import LeftOut

UNUSABLE = 0.1  # share of a file's rows that may be unusable
QUESTIONS = {"question", "query", "input", "instruction", "problem", "context", "system"}  # the prompt's other names

_Item = TypeVar("_Item")
PreferencePair = tuple[Prompt, str, str]  # prompt, chosen, rejected


class Read(list[_Item]):
    """What rows gave, and which rows gave nothing."""

    def __init__(self, items: Iterable[_Item], left_out: LeftOut) -> None:
        super().__init__(items)
        self.left_out = left_out


def completions(rows: Sequence[Row]) -> Read[tuple[Prompt, str]]:
    """Pairs for supervised fine-tuning, of the columns prompt and completion, or messages.

    Raises UserError that names the columns there are, or the first unusable row of too many.
    """
    table = _Table(rows)
    column = "messages" if "messages" in table.columns else "completion"
    table.need(column)
    return _unrepeated(table.read(lambda row, origin: _split(row, column, origin)))


def preference_pairs(rows: Sequence[Row]) -> Read[PreferencePair]:
    """(prompt, chosen, rejected), of the columns chosen and rejected, with or without prompt.

    Raises UserError that names the columns there are, or the first unusable row of too many.
    """
    table = _Table(rows)
    table.need("chosen", "rejected")
    implicit = "prompt" not in table.columns
    asked = sorted(QUESTIONS & table.columns) if implicit and table.plain("chosen") else []
    if asked:  # a shared beginning of the answers is not their prompt, and this column would be lost
        raise UserError(
            f"{table.rows.name}: no column prompt, and {listed(asked)} may be one; name it prompt, or leave it out"
        )
    return _unrepeated(table.read(lambda row, origin: _pair(row, implicit, origin)))


def comparable(pairs: Read[PreferencePair]) -> Read[PreferencePair]:
    """Without the pairs that say nothing of what is better: equal answers, and empty ones. They are no fault of the
    file: any number of them is allowed."""
    kept: Read[PreferencePair] = Read([], pairs.left_out)
    for prompt, chosen, rejected in pairs:
        if chosen != rejected and chosen.strip() and rejected.strip():
            kept.append((prompt, chosen, rejected))
        else:
            reason = "chosen and rejected are equal" if chosen == rejected else "chosen or rejected is empty"
            kept.left_out.add(reason, place_in_file(prompt))
    return kept


def prompts(rows: Sequence[Row], column: str) -> Read[Prompt]:
    """Prompts, with the chosen or supervised response as their reference where the rows have one.

    Raises UserError that names the columns there are, or the first unusable row of too many.
    """
    table = _Table(rows)
    columns = table.columns
    if {"chosen", "rejected"} <= columns and column in ("prompt", "chosen", "conversations"):
        pairs = preference_pairs(table.rows)
        return Read((replace(prompt, reference=chosen) for prompt, chosen, _ in pairs), pairs.left_out)
    wanted = "prompt" if column == "conversations" else column
    if "messages" in columns and (column == "messages" or (wanted == "prompt" and "prompt" not in columns)):
        return table.read(_asked)
    if "completion" in columns and column == "prompt":
        answered = completions(table.rows)
        return Read((replace(prompt, reference=answer) for prompt, answer in answered), answered.left_out)
    table.need(column)
    return table.read(lambda row, origin: _prompt(row, column, origin))


class _Table:
    """Rows, and the columns of TRL's that most of them have or can be put into."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows if isinstance(rows, Rows) else Rows(rows)
        counts = Counter(column for row in self.rows for column, value in row.items() if value is not None)
        self._there = {column for column, count in counts.items() if 2 * count >= len(self.rows)}
        self.columns = trl_columns(self._there)

    def need(self, *columns: str) -> None:
        missing = [column for column in columns if column not in self.columns]
        if missing:
            there = listed(dict.fromkeys(column for row in self.rows for column in row))
            raise UserError(f"{self.rows.name}: no column {listed(missing)}; the data has {there or 'none'}")

    def plain(self, column: str) -> bool:
        """Whether it is of text, by the first row that has it."""
        values = (row[column] for row in self.rows if row.get(column) is not None)
        return isinstance(next(values, None), str)

    def read(self, convert: Callable[[Row, str], _Item]) -> Read[_Item]:
        """What `convert` makes of each row and its origin; UserError where it fails for too many."""
        items, left_out, first = [], LeftOut(len(self.rows)), ""
        for i, row in enumerate(self.rows):
            where = self.rows.place(i)
            try:
                items.append(convert(trl_row(row, self._there), f"{self.rows.name}, {where}"))
            except RowError as bad:
                detail = f": {bad.detail}" if bad.detail else ""
                left_out.add(bad.reason, where + detail)
                first = first or f"{where}: {bad.reason}{detail}"
        count = sum(left_out.values())
        if count > UNUSABLE * len(self.rows):
            raise UserError(
                f"{self.rows.name}: {count:,} of {len(self.rows):,} rows cannot be used, and at most "
                f"{UNUSABLE:.0%} may be; the first: {first}"
            )
        return Read(items, left_out)


def _prompt(row: Row, column: str, origin: str) -> Prompt:
    value, template = row.get(column), template_options(row)
    column = listed([column])
    if value is None:
        raise RowError(f"it has no {column}")
    if isinstance(value, str):
        if not value.strip():
            raise RowError(f"{column} is empty")
        if template and "tools" in template:
            raise RowError("tools are beside a plain prompt, which has no place for them; put it into messages")
        return Prompt(text=text(value, column), template=template, origin=origin)
    messages = messages_of(value, column)
    if messages[-1]["role"] == "assistant":
        raise RowError(f"{column} ends with the assistant's turn")
    return Prompt(messages=tuple(messages), template=template, origin=origin)


def _asked(row: Row, origin: str) -> Prompt:
    """The prompt of a conversation, which may or may not have been answered."""
    messages = row.get("messages")
    if isinstance(messages, list) and messages_of(messages, "messages")[-1]["role"] != "assistant":
        return _prompt(row, "messages", origin)
    prompt, answer = _split(row, "messages", origin)
    return replace(prompt, reference=answer)


def _split(row: Row, column: str, origin: str) -> tuple[Prompt, str]:
    """The prompt and the response of one row: the response is text, or the last message of a conversation."""
    value = row.get(column)
    if value is None:
        raise RowError(f"it has no {column}")
    if isinstance(value, str):
        return _prompt(row, "prompt", origin), text(value, column)
    *before, answer = messages_of(value, column)
    if answer["role"] != "assistant":
        raise RowError(UNANSWERED, f"the last message of {column} is of {answer['role']!r}")
    if answer.get("tool_calls"):
        raise RowError("its answer is a call of tools, which is not text")
    if not before and row.get("prompt") is None:
        raise RowError("nothing is before its answer")
    if row.get("prompt") is not None:
        before = _after(_prompt(row, "prompt", origin), before)
    return Prompt(messages=tuple(before), template=template_options(row), origin=origin), answer["content"]


def _after(prompt: Prompt, before: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The whole conversation up to the answer, of a prompt and what stands before the answer in its own column,
    which may begin with the prompt again."""
    if prompt.messages is None:
        asked = str(prompt.text).strip()
        if not before:
            return [{"role": "user", "content": prompt.text}]
        if any(m["content"].strip() in asked or asked in m["content"] for m in before if m.get("content")):
            return before
    elif not before or before[0]["role"] in ("assistant", "tool"):
        return [*prompt.messages, *before]
    elif without_nulls(before) == without_nulls(prompt.messages):
        return before
    raise RowError("its answer's conversation is not the prompt's")


def _pair(row: Row, implicit: bool, origin: str) -> PreferencePair:
    chosen, rejected = row.get("chosen"), row.get("rejected")
    if implicit and isinstance(chosen, str) and isinstance(rejected, str) and row.get("prompt") is None:
        shared, chosen, rejected = split_shared(text(chosen, "chosen"), text(rejected, "rejected"))
        return Prompt(text=shared, template=template_options(row), origin=origin), chosen, rejected
    prompt, answer = _split(row, "chosen", origin)
    other, worse = _split(row, "rejected", origin)
    if prompt != other and without_nulls(prompt.messages) != without_nulls(other.messages):
        raise RowError(DIFFER)
    return prompt, answer, worse


def _unrepeated(read: Read[Any]) -> Read[Any]:
    """Answers without the prompt, where those of nearly all rows begin with it; the other rows are left out."""
    repeats = [p.text is not None and all(answer.startswith(p.text) for answer in answers) for p, *answers in read]
    if not any(repeats) or repeats.count(False) > UNUSABLE * len(repeats):
        return read
    kept: Read[Any] = Read([], read.left_out)
    for (prompt, *answers), repeated in zip(read, repeats, strict=True):
        if repeated:
            kept.append((prompt, *(answer[len(prompt.text) :] for answer in answers)))
        else:
            kept.left_out.add("its answers do not begin with the prompt, as the others do", place_in_file(prompt))
    return kept


def place_in_file(prompt: Prompt) -> str:
    """The line or the row that it is from, without the file."""
    return (prompt.origin or "").rpartition(", ")[2]
