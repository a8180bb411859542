"""One row's conversation and columns in TRL's form, from the other forms that people have them in.

ShareGPT: messages of from and value, in the column conversations. Alpaca: instruction, input and output. Content
in parts: [{"type": "text", "text": ...}]. What is in TRL's form already is passed on as it is.
"""

import json
from typing import Any

from r2m.tasks.files import Row

SPEAKERS = {
    "human": "user", "user": "user", "system": "system", "tool": "tool", "observation": "tool",
    "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant", "model": "assistant",
    "bard": "assistant", "bing": "assistant", "claude": "assistant",
}  # fmt: skip
MEDIA = {"image", "images", "video", "videos", "audio", "audios"}
NOT_FOR_ROWS = {  # arguments of a chat template that are not a row's to set
    "conversation", "messages", "chat_template", "tokenize", "add_generation_prompt", "continue_final_message",
    "return_dict", "return_tensors", "return_assistant_tokens_mask", "padding", "truncation", "max_length",
}  # fmt: skip


class RowError(Exception):
    """A row that cannot be used: a reason that others may share, and what it is in this one."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


def trl_columns(columns: set[str]) -> set[str]:
    """The columns of a file, and those of TRL's that `trl_row` makes of them."""
    if columns & {"prompt", "messages"}:
        return columns
    if "conversations" in columns:
        return columns | ({"prompt"} if {"chosen", "rejected"} <= columns else {"messages"})
    if "instruction" in columns and columns & {"output", "chosen"}:
        return columns | {"prompt"} | ({"completion"} if "output" in columns else set())
    return columns


def trl_row(row: Row, columns: set[str]) -> Row:
    """A row of a file with these columns, with prompt, completion, messages, chosen and rejected as TRL names them.

    Raises RowError for what would be lost: media, earlier turns, a system text beside a plain prompt.
    """
    for column in sorted(MEDIA & row.keys()):
        if row[column]:
            raise RowError(f"it has {column}; only text is read")
    made = trl_columns(columns) - columns
    if made and "conversations" in columns:
        row = row | {column: row.get("conversations") for column in made}
    elif made:
        row = row | {"prompt": _instruction(row), "completion": row.get("output")}
    return _with_system(row) if row.get("system") else row


def _with_system(row: Row) -> Row:
    column = "messages" if isinstance(row.get("messages"), list) else "prompt"
    messages = row.get(column)
    if not isinstance(messages, list):
        raise RowError("a system text is beside a plain prompt; put both into messages")
    if any(isinstance(m, dict) and "system" in (m.get("role"), m.get("from")) for m in messages):
        raise RowError("a system text is beside a conversation that has one")
    return row | {column: [{"role": "system", "content": row["system"]}, *messages]}


def _instruction(row: Row) -> Any:
    if row.get("history"):
        raise RowError("a history of earlier turns is beside an instruction; put both into messages")
    instruction, more = row.get("instruction"), row.get("input")
    if isinstance(instruction, str) and isinstance(more, str) and more:
        return f"{instruction}\n{more}"
    return instruction


def text(value: str, column: str) -> str:
    """Raises RowError for what no tokenizer takes, and for a conversation that was written as text."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise RowError(f"{column} has half of a surrogate pair, which is no character",
                     f"character {error.start}") from None  # fmt: skip
    if value.startswith("[{") and any(key in value[:200] for key in ('"role"', "'role'", '"from"', "'from'")):
        raise RowError(f"{column} is a conversation written as text; write it as a JSON list")
    return value


def messages_of(value: Any, column: str) -> list[dict[str, Any]]:
    """Messages of role and content, both text; content may be missing beside tool calls. Raises RowError."""
    if isinstance(value, dict):  # LLaMA-Factory's answers
        value = [value]
    if not isinstance(value, list):
        raise RowError(f"{column} is neither text nor a list of messages", f"{column} = {_short(value)}")
    if not value:
        raise RowError(f"{column} is empty")
    return [_message(m, column) for m in value]


def _message(message: Any, column: str) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise RowError(f"{column} is neither text nor a list of messages", f"a message is {_short(message)}")
    if "from" in message and "role" not in message:
        speaker = message["from"]
        if isinstance(speaker, str) and speaker.lower().startswith("function"):
            raise RowError(
                f"a message of {column} is a function's, which ShareGPT has no one form for; write messages of role "
                "and content, with tool_calls, and of role tool",
                f"from = {_short(speaker)}",
            )
        if not isinstance(speaker, str) or speaker.lower() not in SPEAKERS:
            raise RowError(f"a message of {column} has an unknown from", f"from = {_short(speaker)}")
        message = {"role": SPEAKERS[speaker.lower()], "content": message.get("value")}
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or not role:
        raise RowError(f"a message of {column} has no role of text", f"role = {_short(role)}")
    if isinstance(content, list):
        content = _joined(content, column)
        message = message | {"content": content}
    if isinstance(content, str):
        text(content, column)
    elif content is not None or not message.get("tool_calls"):
        raise RowError(f"a message of {column} has no content of text", f"content = {_short(content)}")
    if len(message) > 2:
        text(repr_of(message), column)
    return message


def _joined(parts: list[Any], column: str) -> str:
    for part in parts:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise RowError(f"{column} has a part that is not text", f"a part of content is {_short(part)}")
    return "".join(part["text"] for part in parts)


def template_options(row: Row) -> dict[str, Any] | None:
    """What the chat template is given beside the messages: tools, and chat_template_kwargs. Raises RowError."""
    if not row.get("tools") and not row.get("chat_template_kwargs"):
        return None
    tools, options = (_value(row.get(column), column) for column in ("tools", "chat_template_kwargs"))
    if not isinstance(tools or [], list) or not all(isinstance(tool, dict) for tool in tools or []):
        raise RowError("tools is not a list of JSON objects", f"tools = {_short(tools)}")
    if not isinstance(options or {}, dict):
        raise RowError("chat_template_kwargs is not a JSON object", f"chat_template_kwargs = {_short(options)}")
    given = {key: value for key, value in (options or {}).items() if value is not None}
    if NOT_FOR_ROWS & given.keys():
        raise RowError("chat_template_kwargs sets what is not a row's to set", ", ".join(NOT_FOR_ROWS & given.keys()))
    return (given | {"tools": tools} if tools else given) or None


def _value(value: Any, column: str) -> Any:
    if isinstance(value, str) and value:
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise RowError(f"{column} is not JSON", f"{column} = {_short(value)}") from None
    if value:
        text(repr_of(value), column)
    return value


def without_nulls(value: Any) -> Any:
    """A value without the keys that are null: columns of structs have every key in every row."""
    if isinstance(value, dict):
        return {key: without_nulls(v) for key, v in value.items() if v is not None}
    return [without_nulls(v) for v in value] if isinstance(value, list | tuple) else value


def repr_of(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _short(value: Any) -> str:
    return " ".join(ascii(value).split())[:60]
