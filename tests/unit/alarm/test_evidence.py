"""Which texts show best what an alarm is about."""

from r2m.alarm.evidence import Turn, telling


def said(*scores: tuple[float, float]) -> list[dict]:
    return [{"prompt": f"p{i}", "response": f"r{i}", "proxy": p, "judged": j} for i, (p, j) in enumerate(scores)]


THEN = said((0, 0), (0, 0), (0, 0), (0, 0), (0, 0))


def test_proxy_up_and_judgement_down_the_most_first() -> None:
    now = said((1, -1), (2, 1), (4, -2), (-1, -3), (1, -2))
    assert [turn.prompt for turn in telling(THEN, now)] == ["p2", "p4", "p0"]
    assert [turn.prompt for turn in telling(THEN, now, most=1)] == ["p2"]
    assert telling(THEN, now)[0] == Turn("p2", "r2", "r2", (0, 4), (0, -2))


def test_neither_scale_counts_for_more() -> None:
    """A thousand times the judge's unit is the same order: of 0 and 1 the first falls more, the second rises more by
    far."""
    now = [(1.0, -3.0), (9.0, -2.0), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0)]
    for unit in (1, 1000):
        found = telling(THEN, said(*((p, unit * j) for p, j in now)))
        assert [turn.prompt for turn in found] == ["p1", "p0"]


def test_none_that_did_both() -> None:
    assert telling(THEN, THEN) == []
    assert telling(THEN, said(*[(1, 1)] * 5)) == []
    assert [t.prompt for t in telling(THEN[:1], said((1, -1)))] == ["p0"]  # without any spread
