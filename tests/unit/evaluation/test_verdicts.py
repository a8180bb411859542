"""Verdicts on file survive what can happen to a file."""

import json
import os
import subprocess
import sys

import pytest

from r2m.endpoint.judge_prompts import ResponsePair
from r2m.errors import UserError
from r2m.evaluation.verdicts import StoredVerdicts, Verdict, VerdictStore, read_verdicts, stored_judge, verdict_key


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cache" / "verdicts.jsonl"


def filled(path, **preferences):
    with VerdictStore(path) as store:
        for key, preference in preferences.items():
            store.put(key, "judge", Verdict(preference, f"reply {key}\n"))
    return path


def test_what_was_put_is_there_afterwards(path):
    filled(path, a=1.0, b=None)
    filled(path, c=0.5)
    expected = {"a": Verdict(1.0, "reply a\n"), "b": Verdict(None, "reply b\n"), "c": Verdict(0.5, "reply c\n")}
    assert read_verdicts(path) == expected
    with VerdictStore(path) as store:
        assert {key: store.get(key) for key in "abcd"} == {**expected, "d": None}
        assert len(store) == 3


def test_the_first_verdict_on_a_key_counts_and_is_written_once(path):
    filled(path, a=1.0)
    before = path.read_bytes()
    filled(path, a=0.0)
    assert path.read_bytes() == before
    with path.open("a") as file:
        file.write('{"key": "a", "preference": 0, "reply": ""}\n')
    assert read_verdicts(path)["a"].preference == 1.0


@pytest.mark.parametrize(
    "torn", [b"{", b'{"key": "b", "preference": 1, "reply": "\xc3', b'{"key": "b", "preference": 1}']
)
def test_a_torn_last_line_is_passed_over_and_cut_off(path, torn):
    whole = filled(path, a=1.0).read_bytes()
    path.write_bytes(whole + torn)
    assert list(read_verdicts(path)) == ["a"]
    assert path.read_bytes() == whole + torn  # reading changes nothing
    filled(path, c=0.0)
    assert path.read_bytes().startswith(whole)
    assert list(read_verdicts(path)) == ["a", "c"]


@pytest.mark.parametrize(
    "line",
    ["nonsense", "[]", "1", '{"key": "k"}', '{"key": 1, "preference": 1}', '{"key": "k", "preference": 2}',
     '{"key": "k", "preference": "1"}', '{"key": "k", "preference": true}', '{"key": "k", "preference": NaN}',
     f'{{"key": "k", "preference": 1{"0" * 400}}}', f'{{"key": "k", "preference": 1{"0" * 5000}}}', "[" * 100_000,
     '{"key": "k", "preference": 1, "reply": 3}', ""],
)  # fmt: skip
def test_a_whole_line_that_is_no_verdict_is_named(path, line):
    path.parent.mkdir()
    path.write_text(f'{{"key": "a", "preference": 1}}\n{line}\n')
    for read in (read_verdicts, VerdictStore):
        with pytest.raises(UserError) as caught:
            read(path)
        assert f"verdicts = {str(path)!r}: line 2 is no verdict" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_one_process_writes_at_a_time_and_a_killed_one_lets_go(path):
    script = (
        "import sys, time; from r2m.evaluation.verdicts import *; store = VerdictStore(sys.argv[1]);"
        "store.put('a', 'judge', Verdict(1.0)); print('written', flush=True); time.sleep(600)"
    )
    other = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "written\n"
        with pytest.raises(UserError, match="another process is writing this file"):
            VerdictStore(path)
        assert list(read_verdicts(path)) == ["a"]
    finally:
        other.kill()
        other.wait()
    filled(path, b=0.0)
    assert list(read_verdicts(path)) == ["a", "b"]


@pytest.mark.parametrize("text", ['{"policy": 1}', "[", "# Notes", "PAR1\0\0", '{"key"'])
def test_the_text_of_another_file_is_not_cut_off(path, text):
    """A file without a last newline is all torn line."""
    path.parent.mkdir()
    path.write_text(text)
    ours = '{"key": "'.startswith(text)
    if ours:
        VerdictStore(path).close()
    else:
        with pytest.raises(UserError, match="holds something else than verdicts"):
            VerdictStore(path)
    assert path.read_text() == ("" if ours else text)


def test_a_reply_that_may_have_been_cut_off_counts_as_none(path):
    """Earlier versions kept them, and did not write that a reply is whole."""
    path.parent.mkdir()
    path.write_text(
        '{"key": "a", "preference": null, "reply": "It is"}\n{"key": "b", "preference": 1, "reply": "A"}\n'
        '{"key": "c", "preference": null, "reply": "No.", "whole": true}\n{"key": "a", "preference": 0}\n'
    )
    assert read_verdicts(path) == {"a": Verdict(0), "b": Verdict(1, "A"), "c": Verdict(None, "No.")}


def test_a_store_without_verdicts_leaves_nothing(tmp_path):
    VerdictStore(tmp_path / "a" / "b" / "verdicts.jsonl").close()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").touch()
    VerdictStore(tmp_path / "mine").close()
    filled(tmp_path / "c" / "verdicts.jsonl", a=1.0)
    VerdictStore(tmp_path / "c" / "verdicts.jsonl").close()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["c", "mine", "verdicts.jsonl"]


def test_what_is_no_file_is_one_line(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", "/dev/null"):
        for read in (read_verdicts, VerdictStore):
            with pytest.raises(UserError, match=r"^verdicts = '.*': not a file$"):
                read(path)


def test_a_file_that_cannot_be_opened_is_one_line(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_verdicts(tmp_path / "none.jsonl")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        VerdictStore(tmp_path / "file" / "verdicts.jsonl")


def test_a_key_is_of_all_that_a_verdict_depends_on():
    comparison = ResponsePair("prompt", "one", "two")
    keys = [
        verdict_key("judge", "template", comparison),
        verdict_key("other", "template", comparison),
        verdict_key("judge", "other", comparison),
        verdict_key("judge", "template", ResponsePair("other", "one", "two")),
        verdict_key("judge", "template", ResponsePair("prompt", "two", "one")),
        verdict_key("judge", "template", ResponsePair("promptone", "", "two")),
        verdict_key("judgetemplate", "", comparison),
    ]
    assert len(set(keys)) == len(keys)
    assert keys[0] == verdict_key("judge", "template", ResponsePair(*comparison))
    limits = ("max_tokens 9", "max_completion_tokens 4096", "max_tokens null")
    names = [f"m at http://h ({limit}, temperature 0)" for limit in ("max_tokens 256", *limits)]
    assert len({verdict_key(name, "t", comparison) for name in names}) == 1
    assert verdict_key(names[0].replace("ture 0", "ture 1"), "t", comparison) != verdict_key(
        names[0], "t", comparison
    )
    assert verdict_key("j", "t", ResponsePair("\ud800", "é", "\0"))  # broken text has a key too


def test_the_judge_on_file_is_one_under_any_limit(path):
    def name(limit, temperature=0, model="gpt"):
        return f"{model} at http://h (max_tokens {limit}, temperature {temperature})"

    known = [ResponsePair("p", "x", text) for text in "abc"]
    with VerdictStore(path) as store:
        for limit, comparison in zip((256, 900), known, strict=False):
            store.put(verdict_key(name(limit), "t", comparison), name(limit), Verdict(1.0))
    assert stored_judge(path, "t")(known) == [1.0, 1.0, None]
    with VerdictStore(path) as store:
        for other in (name(256, 1), name(256, 0, "gemma")):
            store.put(verdict_key(other, "t", known[2]), other, Verdict(0.0))
    for model in (None, "gpt", "llama", ""):
        with pytest.raises(UserError, match="name one judge by --judge-model; it has") as caught:
            stored_judge(path, "t", model)
        assert name(256, 1) in str(caught.value)
    assert stored_judge(path, "t", "gemma")(known) == [None, None, 0.0]
    assert stored_judge(path, "t", name(256, 1))(known) == [None, None, 0.0]


def test_stored_verdicts_know_one_order_and_nothing_else(path):
    known = ResponsePair("p", "x", "y")
    with VerdictStore(path) as store:
        store.put(verdict_key("gpt", "which?", known), "gpt", Verdict(1.0))
        store.put(verdict_key("gpt", "which?", ResponsePair("p", "x", "z")), "gpt", Verdict(None, "dunno"))
    batch = [known, ResponsePair("p", "y", "x"), ResponsePair("p", "x", "z")]
    assert StoredVerdicts("gpt", "which?", read_verdicts(path))(batch) == [1.0, None, None]
    assert StoredVerdicts("other", "which?", read_verdicts(path))(batch) == [None, None, None]
    assert json.loads(path.read_text().splitlines()[0])["judge"] == "gpt"
