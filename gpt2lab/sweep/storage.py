"""The database of a study: a file in its folder, or one that several machines share."""

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from gpt2lab.config import Direction
from gpt2lab.config.changes import shown
from gpt2lab.config.redact import learn
from gpt2lab.errors import ConfigError
from gpt2lab.sweep.study import DATABASE

DEFINITION = "definition"
"""The user attribute of an Optuna study that says what its points mean."""
WAITING_S = 60.0
"""How long a process waits for another that writes into the same file."""
TRIES = 5
PACKAGES = {
    "psycopg": "'psycopg[binary]'",
    "psycopg2": "psycopg2-binary",
    "MySQLdb": "mysqlclient",
    "pymysql": "PyMySQL",
}
"""What brings a driver, where that is called otherwise."""


def open_storage(address: str | None, folder: Path) -> RDBStorage:
    """
    Args:
        address: of a database; None for the one in the study's folder.
    Raises:
        ConfigError: if it cannot be reached, or is none of Optuna's.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for attempt in range(1, TRIES + 1):
        try:
            return _opened(address, folder)
        except (ArgumentError, OmegaConfBaseException) as error:
            raise _unreached(address, folder, error) from error
        except SQLAlchemyError as error:
            if attempt == TRIES:
                raise _unreached(address, folder, error) from error
            time.sleep(0.2 * attempt)  # two that begin at once may both make the tables
        except (ImportError, RuntimeError) as error:
            raise _unreached(address, folder, error) from error
    raise AssertionError


def _opened(address: str | None, folder: Path) -> RDBStorage:
    waiting = {"connect_args": {"timeout": WAITING_S}}
    if address is None:
        url = f"sqlite:///{(folder / DATABASE).resolve()}"
        told = {**waiting, "pool_events": [(_write_ahead, "connect")]}
        return RDBStorage(url, engine_kwargs=told)
    url = OmegaConf.create({"url": address}).url
    learn({url})  # what cannot be parsed is quoted
    # Not written ahead: a file that several machines share does not bear it.
    return RDBStorage(
        url, engine_kwargs=waiting if url.startswith("sqlite") else {"pool_pre_ping": True}
    )


def _write_ahead(connection: sqlite3.Connection, _: object) -> None:
    """A dozen commits a trial, and none of them waits for the disk, which trials keep busy.

    A kill loses nothing so; a power cut may lose the last seconds, but leaves the file whole.
    """
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def _unreached(address: str | None, folder: Path, error: Exception) -> ConfigError:
    where = place(address, folder)
    missing = error.__cause__.name if isinstance(error.__cause__, ImportError) else None
    if missing is not None:
        package = PACKAGES.get(missing, missing)
        return ConfigError(f"{where}: {missing} is not installed; pip install {package}")
    return ConfigError(
        f"{where}: cannot be opened ({_why(error)}); check the database and its driver"
    )


def place(address: str | None, folder: Path) -> str:
    """The database by a name without secrets."""
    return str(folder / DATABASE) if address is None else "study.storage"


@contextmanager
def failing_as(error: Callable[[str], Exception], where: str) -> Iterator[None]:
    """What goes wrong with the database in the body, in a line of our own.

    Args:
        error: made of the line.
        where: the database.
    """
    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as found:
        raise error(
            f"{where}: cannot be read or written ({_why(found)}); "
            "make room if the disk is full, or bring back a copy that is whole"
        ) from found


def _why(error: BaseException) -> str:
    """The reason that the database itself gives."""
    if isinstance(error, StorageInternalError) and error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(getattr(error, "orig", None) or error).split())


def open_study(storage: RDBStorage, name: str, directions: list[Direction]) -> optuna.Study:
    """The study of that name, begun or gone on with.

    Raises:
        ConfigError: if one of that name has other directions.
    """
    wanted = [StudyDirection[direction.name.upper()] for direction in directions]
    study = optuna.create_study(
        storage=storage, study_name=name, directions=wanted, load_if_exists=True
    )
    if study.directions != wanted:
        before, now = (", ".join(d.name.lower() for d in ds) for ds in (study.directions, wanted))
        raise ConfigError(
            f"study.direction: {before} in the study {name}, {now} now; "
            "leave it as it was, or choose another name="
        )
    return study


def check_same(study: optuna.Study, definition: dict[str, Any]) -> None:
    """Keep what a study means, or hold it against what it meant when it was begun.

    Raises:
        ConfigError: if one of its name asks for something else; each difference is a line.
    """
    stored = study.user_attrs.get(DEFINITION)
    if stored is None:
        study.set_user_attr(DEFINITION, definition)
        return
    stored, now = (_unordered(told) for told in (stored, json.loads(json.dumps(definition))))
    if problems := [
        f"{key}: {_text(stored.get(key))} in the study {study.study_name}, "
        f"{_text(now.get(key))} now; leave it as it was, or choose another name="
        for key in {**stored, **now}
        if stored.get(key) != now.get(key)
    ]:
        raise ConfigError(*problems)


def _unordered(definition: dict[str, Any]) -> dict[str, Any]:
    """Of the base the order means nothing: it holds each setting once."""
    return {**definition, "study.base": sorted(definition.get("study.base", []))}


def _text(value: Any) -> str:
    return shown(value) if not isinstance(value, dict | list) else json.dumps(value)
