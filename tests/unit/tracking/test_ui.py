"""What `serve` refuses before it starts anything; tests/integration/test_mlflow.py has it serve."""

import socket

import pytest

from r2m.errors import UserError
from r2m.tracking.mlflow_sink import default_tracking_uri
from r2m.tracking.ui import answers, arms_of, serve


def test_a_port_that_is_taken_is_refused_in_one_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"port = {port}: .*in use") as error:
            serve(tmp_path, port)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_does_not_exist_is_refused(tmp_path, port):
    with pytest.raises(UserError, match=f"port = {port}: "):
        serve(tmp_path, port)


def test_a_storage_folder_that_is_not_there_is_not_made(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        serve(tmp_path / "typo", 0)
    assert not (tmp_path / "typo").exists()


def test_nothing_answers_where_nobody_listens():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        assert not answers(free.getsockname()[1])


def test_an_experiment_that_is_not_there_is_refused_before_anything_is_served(storage):
    with pytest.raises(UserError, match=r"EXPERIMENT = 'nobody': .*; there are: .*r2m/forum/sft"):
        serve(storage, 0, "nobody")


def test_the_address_of_arms_is_where_the_pages_will_be(storage, tmp_path):
    address = arms_of(default_tracking_uri(storage), "r2m/forum/sft")
    assert address.startswith("http://127.0.0.1:5000/#/experiments/")
    assert arms_of(default_tracking_uri(storage), "nobody") is None
    assert arms_of(default_tracking_uri(tmp_path), "r2m/forum/sft") is None
    assert list(tmp_path.iterdir()) == []
