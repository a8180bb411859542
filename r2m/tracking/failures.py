"""What MLflow, its database or the network raised: whether it may pass by itself, and how to say it in one line."""

import re

from r2m.errors import UserError, reason_of

LASTING = (  # of a database: waiting does not help
    "readonly database", "database or disk is full", "disk I/O error", "unable to open database file",
    "not a database", "malformed",
)  # fmt: skip
MEANINGS = {  # a part of the client's message -> what it means
    "timeout exception": "the server does not answer in time",
    "Read timed out": "the server does not answer in time",
    "ConnectTimeoutError": "the server cannot be reached in time",
    "Connection refused": "the server is down (connection refused)",
    "Connection aborted": "the connection was lost before the answer came",
    "Connection reset": "the connection was lost before the answer came",
    "Connection broken": "the connection was lost before the answer came",
    "NameResolutionError": "the server's name is not known",
    "No route to host": "the server cannot be reached",
    "Network is unreachable": "the server cannot be reached",
    "valid JSON": "what answers is not an MLflow server",
    "database is locked": "another process holds the database",
}
OF_STATUS = {
    "401": ": it wants to know who asks",
    "403": ": it does not allow this",
    "404": ": nothing of MLflow's is at this address",
}


def is_trackings(error: BaseException) -> bool:
    """Whether it is MLflow's, its database's or the network's, not this program's own."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return isinstance(error, MlflowException | SQLAlchemyError | OSError)


def may_pass(error: BaseException) -> bool:
    """Whether the same request may go through later: a server that is down, hung, busy or broken."""
    if isinstance(error, UserError) or not is_trackings(error):
        return False
    if any(words in str(error) for words in LASTING):
        return False
    status = _status(error)
    if status is not None:
        return status >= 500 or status in (408, 429)
    return not isinstance(error, OSError) or isinstance(error, ConnectionError | TimeoutError)


def _status(error: BaseException) -> int | None:
    """The HTTP status that an error stands for; 503 for a request without an answer."""
    from mlflow.exceptions import MlflowException
    from requests import RequestException

    if isinstance(error, RequestException):  # of an artifact
        return 503 if error.response is None else error.response.status_code
    if answered := _answered(error):
        return int(answered)
    return error.get_http_status_code() if isinstance(error, MlflowException) else None


def reason(error: BaseException) -> str:
    """What went wrong, in one line."""
    if status := _answered(error):
        return f"the server answers {status}" + OF_STATUS.get(status, "")
    return next((said for words, said in MEANINGS.items() if words in str(error)), reason_of(error))


def _answered(error: BaseException) -> str:
    found = re.search(r"(?<=too many )\d{3}(?= error responses)|(?<=error code )\d{3}(?= )", str(error))
    return found[0] if found else ""
