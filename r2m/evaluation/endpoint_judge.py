"""A language model behind an OpenAI-compatible endpoint as the judge, with every answer on file and a cap on cost.

A whole answer is on file before anything else happens, and what is on file is never asked again, also where it is no
usable verdict: the next run would pay for the same words. What had no answer, one that was cut off, or an empty one
is asked again by the next run. Where nothing is answered at all, asking ends early.
"""

import json
import math
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field

from r2m.endpoint.chat_endpoint import NO_CONNECTION, ChatEndpoint, Messages, StoppedError, UnansweredError
from r2m.endpoint.chat_format import CUT_OFF, LIMITS, Reply
from r2m.endpoint.judge_prompts import ResponsePair, Template, read_verdict
from r2m.errors import UserError
from r2m.evaluation.verdicts import Verdict, VerdictStore, verdict_key

PER_MESSAGE = 16  # tokens, at most, of a message's role and delimiters
IN_VAIN = 8  # the first questions; more without any answer are not asked


@dataclass(frozen=True)
class Cap:
    """What may be spent by one EndpointJudge. Prices are per million tokens, in one currency with `max_cost`."""

    max_calls: int | None = None  # requests sent, repeated ones too
    max_cost: float | None = None
    price_in: float = 0.0
    price_out: float = 0.0

    def __post_init__(self) -> None:
        for name in ("max_cost", "price_in", "price_out"):
            if not math.isfinite(getattr(self, name) or 0.0):
                raise UserError(f"judge {name} = {getattr(self, name)}: a finite number is needed")
        if self.max_cost is not None and not (self.price_in > 0 or self.price_out > 0):
            raise UserError(f"judge max_cost = {self.max_cost}: needs price_in or price_out above 0")


@dataclass
class Tally:
    """Counts of distinct comparisons, but for calls and tokens. cached + answered + failed + not_asked are all."""

    cached: int = 0
    answered: int = 0
    nonsense: int = 0  # of cached and answered: without a usable verdict
    failed: Counter[str] = field(default_factory=Counter)  # reason -> how many
    said: dict[str, str] = field(default_factory=dict)  # reason -> the endpoint's own words, or what helps
    not_asked: int = 0  # because of the cap
    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float = 0.0  # an upper bound: what may be charged for counts with the most that it can cost

    def __str__(self) -> str:
        parts = [f"{self.answered} verdicts asked for, {self.cached} from the file, {self.nonsense} unusable"]
        parts += [f"{n} without an answer ({self.with_words(reason)})" for reason, n in self.failed.most_common()]
        if self.not_asked:
            parts.append(f"{self.not_asked} not asked: the cap is reached")
        cost = f", at most {self.cost:.4f}" if self.cost else ""
        return f"{'; '.join(parts)}; {self.calls} calls, {self.tokens_in} + {self.tokens_out} tokens{cost}"

    def with_words(self, reason: str) -> str:
        return f"{reason}: {self.said[reason]}" if self.said.get(reason) else reason


class _CapReachedError(Exception): ...


class EndpointJudge:
    """A Judge. Answers of at most `concurrency` calls at a time go into `store`; `tally` says what became of all.

    Raises UserError, as a call does, where no question would be answered (a wrong key, model or address).
    """

    def __init__(
        self, endpoint: ChatEndpoint, template: Template, store: VerdictStore, cap: Cap = Cap(), concurrency: int = 4
    ) -> None:
        if concurrency < 1:
            raise UserError(f"judge concurrency = {concurrency}: at least 1 is allowed")
        self.tally = Tally()
        self._endpoint, self._template, self._store, self._cap = endpoint, template, store, cap
        self._concurrency = concurrency
        self._limit = next((name for name in LIMITS if name in endpoint.body), None)
        self._most_out: int | None = endpoint.body[self._limit] if self._limit else None  # tokens of a reply
        if cap.max_cost is not None and self._most_out is None:
            raise UserError(f"judge max_cost = {cap.max_cost}: needs max_tokens in the request's body")
        self._changed = threading.Condition()  # guards the tally and what is reserved
        self._under_way = 0  # calls
        self._reserved = 0.0  # the most that they can cost

    @property
    def name(self) -> str:
        """Model, address and the request's settings. Where one of these is another, so are the verdicts; only the
        limit on a reply's tokens makes no difference (`verdict_key`)."""
        settings = dict(self._endpoint.body)
        if not any(name in settings for name in LIMITS):
            settings["max_tokens"] = None
        order = sorted(settings, key=lambda name: "max_tokens" if name in LIMITS else name)
        body = ", ".join(f"{name} {json.dumps(settings[name], sort_keys=True)}" for name in order)
        return f"{self._endpoint.model} at {self._endpoint.url.rstrip('/')} ({body})"

    @property
    def template(self) -> str:
        return self._template.text

    def __call__(self, batch: Sequence[ResponsePair]) -> list[float | None]:
        keys = [verdict_key(self.name, self.template, comparison) for comparison in batch]
        distinct = dict(zip(keys, batch, strict=True))
        new = {key: comparison for key, comparison in distinct.items() if self._store.get(key) is None}
        self.tally.cached += len(distinct) - len(new)
        stop = threading.Event()
        with ThreadPoolExecutor(self._concurrency) as pool:
            try:
                for done in as_completed([pool.submit(self._ask, *item, stop) for item in new.items()]):
                    done.result()
            except BaseException:
                stop.set()
                pool.shutdown(wait=True, cancel_futures=True)  # those under way still reach the file
                raise
        known = {key: verdict.preference for key in distinct if (verdict := self._store.get(key)) is not None}
        self.tally.nonsense += sum(preference is None for preference in known.values())
        return [known.get(key) for key in keys]

    def _ask(self, key: str, comparison: ResponsePair, stop: threading.Event) -> None:
        messages = self._template.messages(comparison)
        try:
            reply = self._endpoint.ask(messages, stop, lambda: self._account(messages))
        except UnansweredError as trouble:
            self._unanswered(str(trouble), trouble.said, stop)
        except _CapReachedError:
            with self._changed:
                self.tally.not_asked += 1
        except StoppedError:
            pass  # the exception that stopped all is on its way
        except UserError:
            stop.set()  # before this thread takes the next question
            raise
        else:
            if reply.lacking is not None:
                self._unanswered(*self._why(reply.lacking), stop)
                return
            self._store.put(key, self.name, Verdict(read_verdict(reply.text), reply.text))
            with self._changed:
                self.tally.answered += 1

    def _why(self, lacking: str) -> tuple[str, str]:
        """In words, and what may help."""
        if lacking != CUT_OFF or self._limit is None:
            return lacking, ""
        option = "--judge-max-tokens" if self._limit == "max_tokens" else f"--judge-body {self._limit}"
        return f"cut off at {self._most_out} tokens", f"raise {option}"

    def _unanswered(self, reason: str, said: str, stop: threading.Event) -> None:
        """Count it. Raises UserError, all others being stopped, where no question seems to have an answer."""
        tally = self.tally
        with self._changed:
            tally.failed[reason] += 1
            if said:
                tally.said.setdefault(reason, said)
            lost = reason == NO_CONNECTION
            enough = 1 if lost and not tally.cached else IN_VAIN
            in_vain = not tally.answered and (lost or not tally.cached) and tally.failed.total() >= enough
        if in_vain:
            stop.set()
            first = "question" if enough == 1 else f"{enough} questions"
            hint = "; --judge-body changes the request" if reason in ("status 400", "status 422") else ""
            raise UserError(
                f"judge url = {self._endpoint.url!r}, model {self._endpoint.model!r}: no answer to the first "
                f"{first} ({tally.with_words(reason)}){hint}"
            ) from None

    def _account(self, messages: Messages) -> Callable[[Reply | None, bool], None]:
        """Take a call and its greatest cost from the cap, waiting for calls under way where they may leave enough."""
        most_in = sum(len(message["content"].encode(errors="surrogatepass")) + PER_MESSAGE for message in messages)
        most = self._cost(most_in, self._most_out or 0)
        max_calls, max_cost = (math.inf if cap is None else cap for cap in (self._cap.max_calls, self._cap.max_cost))
        with self._changed:
            while self._under_way and self.tally.cost + self._reserved + most > max_cost:
                self._changed.wait()
            if self.tally.calls >= max_calls or self.tally.cost + most > max_cost:
                raise _CapReachedError
            self.tally.calls += 1
            self._under_way += 1
            self._reserved += most

        def settle(reply: Reply | None, billed: bool) -> None:
            with self._changed:
                self._under_way -= 1
                self._reserved = self._reserved - most if self._under_way else 0.0  # no rounding left behind
                if reply is not None and reply.tokens_in is not None and reply.tokens_out is not None:
                    self.tally.tokens_in += reply.tokens_in
                    self.tally.tokens_out += reply.tokens_out
                    self.tally.cost += self._cost(reply.tokens_in, reply.tokens_out)
                elif billed:
                    self.tally.cost += most
                self._changed.notify_all()

        return settle

    def _cost(self, tokens_in: int, tokens_out: int) -> float:
        return (tokens_in * self._cap.price_in + tokens_out * self._cap.price_out) / 1e6
