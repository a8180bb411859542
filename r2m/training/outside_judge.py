"""A language model behind an address as the alarm's judge: it may fail or be slow, and training goes on.

Of each held-out prompt it is asked once which is better, the policy's response or the reference's. Which of the two
it reads first is drawn for each prompt, and is the same at every evaluation: what a place is worth to a judge is on
both sides of the comparison that the rule makes.
"""

from __future__ import annotations

import importlib.util
import random
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from r2m.alarm.evidence import HeldOutText
from r2m.config import Run
from r2m.endpoint.judge_prompts import TEMPLATES, ResponsePair, read_verdict
from r2m.errors import UserError
from r2m.tasks.prompt import Prompt, as_judges_read

if TYPE_CHECKING:
    from r2m.endpoint.chat_endpoint import ChatEndpoint

WAIT_S = 60.0  # for all answers of an evaluation
AT_A_TIME = 8  # questions


class SilentError(Exception):
    """Too few verdicts to judge by; the message says why. `billed`: requests that may be charged for all the same."""

    def __init__(self, reason: str, billed: int = 0) -> None:
        super().__init__(reason)
        self.billed = billed


def endpoint_of(run: Run) -> ChatEndpoint:
    """Raises UserError for an address, a model or a key that cannot be used, and where openai is not installed."""
    if importlib.util.find_spec("openai") is None:
        raise UserError("run.judge_url: asking needs the package openai: pip install 'r2m[judge]'")
    from r2m.endpoint.chat_endpoint import ChatEndpoint

    assert run.judge_url is not None and run.judge_model is not None  # noqa: PT018
    return ChatEndpoint(
        run.judge_url, run.judge_model, key_env=run.judge_key_env, timeout_s=WAIT_S, tries=3, max_wait_s=WAIT_S
    )


def outside_judgements(run: Run, said: Sequence[HeldOutText], wait_s: float = WAIT_S) -> list[float]:
    """Of each prompt 1 where the response is preferred to the reference's, 0 where it is the other way round, 1/2 for
    a tie, equal responses (nobody is asked) and a question without a usable verdict.

    Raises SilentError where not all questions have had their turn after `wait_s` seconds, and where fewer than half
    of them have a verdict.
    """
    draw = random.Random(run.eval_seed)
    swapped = [draw.random() < 0.5 for _ in said]
    todo = deque(i for i, row in enumerate(said) if row["response"] != row["reference"])
    asked, scores = len(todo), [0.5] * len(said)
    stop, deadline = threading.Event(), time.monotonic() + wait_s
    verdicts: list[float] = []
    troubles: list[str] = []
    billed: list[bool] = []
    try:
        endpoint = endpoint_of(run)
    except UserError as error:
        raise SilentError(str(error)) from None
    from r2m.endpoint.chat_endpoint import NO_CONNECTION, UnansweredError

    def ask(row: HeldOutText, swap: bool) -> float | None:
        texts = (row["response"], row["reference"])
        pair = ResponsePair(as_judges_read(Prompt.of(row["prompt"])), *(texts[::-1] if swap else texts))
        try:
            reply = endpoint.ask(
                TEMPLATES["general"].messages(pair), stop, lambda: lambda _, may_cost: billed.append(may_cost)
            )
        except UserError as error:  # of every question
            stop.set()
            troubles.append(str(error))
            return None
        except UnansweredError as trouble:
            troubles.append(str(trouble))
            if troubles[-1] == NO_CONNECTION and not verdicts:
                stop.set()
            return None
        except Exception as error:  # whatever it is, training goes on
            troubles.append(type(error).__name__)
            return None
        first = None if reply.lacking else read_verdict(reply.text)
        if first is None:
            troubles.append(reply.lacking or "a reply without a verdict")
            return None
        return 1 - first if swap else first

    def work() -> None:
        while todo and not stop.is_set():
            try:
                i = todo.popleft()
            except IndexError:
                return
            if (score := ask(said[i], swapped[i])) is not None:
                scores[i] = score
                verdicts.append(score)

    # Not of an executor, whose threads the process would wait for at its end.
    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(AT_A_TIME, asked))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    late = any(thread.is_alive() for thread in threads)
    stop.set()
    if late or 2 * len(verdicts) < asked:
        why = f"not all answers in {wait_s:g} s" if late else troubles[0]
        # Those under way may cost, too.
        raise SilentError(f"{len(verdicts)} verdicts on {asked} questions: {why}", sum(billed) + AT_A_TIME * late)
    return scores
