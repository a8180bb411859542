"""Addresses: what is allowed as MLflow's and as a judge's, and SQLite's from a file's path and back."""

import re
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

SERVERS = ("http", "https")
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")  # MLflow's; each may name a driver: mysql+pymysql
SECRETS = ("pass", "pwd", "token", "secret", "key", "auth", "user", "credential")


def check_uri(uri: str) -> str:
    """The address of an MLflow server or database.

    Raises ValueError, which shows nothing of a secret, for any other, and for one that holds a secret: every run
    keeps it.
    """
    if not uri.isprintable() or len(uri) > 4000:
        raise ValueError("printable text of at most 4000 characters is allowed")
    try:
        address = urlsplit(uri)
        user, host, _ = address.username, address.hostname, address.port
    except ValueError as error:  # an unclosed bracket, a port that is no number
        raise ValueError(f"no address ({error})") from None
    scheme = address.scheme.partition("+")[0]
    if scheme not in (*SERVERS, *DATABASES, "databricks") and uri != "databricks":
        kinds = ", ".join([*(f"{kind}://" for kind in (*SERVERS, *DATABASES)), "databricks"])
        raise ValueError(f"{kinds} are allowed, and a folder is not: MLflow keeps no new runs in one")
    if user is not None or address.password is not None:
        raise ValueError(
            f"{address.scheme}://***@{host}: a user or password here would be logged; set MLFLOW_TRACKING_USERNAME "
            "and MLFLOW_TRACKING_PASSWORD instead"
        )
    named = address.query.lower().replace("&", "=").split("=")[::2]
    if any(secret in name for name in named for secret in SECRETS):
        raise ValueError(
            f"{address.scheme}://{address.netloc}{address.path}?***: a secret here would be logged; give it to "
            "MLflow by its environment"
        )
    if scheme in SERVERS and (not host or address.query or address.fragment):
        raise ValueError(f"{address.scheme}://HOST[:PORT][/PATH] is allowed, without anything behind it")
    if scheme == "sqlite" and sqlite_path(uri) is None:
        raise ValueError("sqlite:///FILE is allowed, with %3F for a question mark in it")
    return uri


def check_endpoint(url: str) -> str:
    """The address of an OpenAI-compatible endpoint. Raises ValueError, which shows nothing of it, for any other, and
    for one with a user or a query: every run keeps it."""
    try:
        address = urlsplit(url)
        fine = address.scheme in SERVERS and address.hostname and address.port != 0
    except ValueError:
        fine = False
    bare = url.isprintable() and len(url) <= 4000 and not any(sign in url for sign in "@?# ")
    if not fine or not bare or url.rstrip("/").endswith("/chat/completions"):
        raise ValueError(
            "http[s]://HOST[:PORT][/PATH] is allowed, such as http://HOST/v1, without a user, a password or anything "
            "behind it; run.judge_key_env names the environment variable that holds a key"
        )
    return url


def check_variable(name: str) -> str:
    """An environment variable's name. Raises ValueError, which doesn't show what may be the key itself."""
    if not re.fullmatch(r"[A-Z_][A-Z0-9_]{,99}", name):
        raise ValueError("the name of an environment variable, in capitals, is allowed, not the key")
    return name


def sqlite_uri(path: Path | str) -> str:
    """SQLAlchemy's address of a database in a file, whatever characters its path has.

    Where some are quoted it names the driver: MLflow makes the folder of what follows sqlite:///, unquoted as it is.
    """
    quoted = quote(str(path), safe="/ +")
    return f"sqlite{'' if quoted == str(path) else '+pysqlite'}:///{quoted}"


def sqlite_path(uri: str) -> Path | None:
    """The file of such an address; None for any other address."""
    kind, _, path = uri.partition(":///")
    if kind.partition("+")[0] != "sqlite" or not path or "?" in path or path == ":memory:":
        return None
    return Path(unquote(path))
