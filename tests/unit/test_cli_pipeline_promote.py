"""`r2m pipeline promote NAME --rollback`: who is the champion, one back, and one line for what cannot be."""

import pytest
from made_promotions import promoted, registered, trained

from r2m.tracking.mlflow_sink import default_tracking_uri


@pytest.fixture
def place(tmp_path, capsys):
    uri = default_tracking_uri(tmp_path)
    for run in ("one", "two"):
        trained(tmp_path, run)
        promoted(uri, tmp_path, run)
    capsys.readouterr()  # what MLflow says of a new database
    return tmp_path, uri


def asked(r2m, where, *arguments):
    code, out, err = r2m("pipeline", "promote", *arguments, "--storage", str(where))
    assert "Traceback" not in err
    return code, out.splitlines(), err.splitlines()


def test_it_says_who_and_goes_back_until_there_is_none_before(r2m, place):
    where, uri = place
    two = "version 2 of r2m.nightly.policy (run two)"
    one = "version 1 of r2m.nightly.policy (run one)"
    assert asked(r2m, where, "nightly") == (0, [f"champion of nightly is {two}; before it: version 1"], [])
    assert registered(uri)["policy"] == (2, "2")
    said = [f"champion of nightly was {two}", f"champion of nightly is {one}; none before it"]
    assert asked(r2m, where, "nightly", "--rollback") == (0, said, [])
    assert registered(uri) == {"policy": (2, "1"), "reward": (2, "1")}
    code, out, (line,) = asked(r2m, where, "nightly", "--rollback")
    assert (code, out) == (2, [])
    assert "is the first champion of nightly: there is none before it" in line


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("weekly", "NAME = 'weekly': it has no champion; pipelines with one: nightly"),
        ("../x", "NAME '../x': letters"),
    ],
)
def test_a_pipeline_without_one_is_one_line(r2m, place, name, said):
    for option in ([], ["--rollback"]):
        code, out, (line,) = asked(r2m, place[0], name, *option)
        assert (code, out) == (2, [])
        assert said in line


def test_a_storage_without_a_database_is_one_line_and_stays_without(r2m, tmp_path):
    code, _, (line,) = asked(r2m, tmp_path / "none", "nightly", "--rollback")
    assert (code, "no such file" in line, (tmp_path / "none").exists()) == (2, True, False)
