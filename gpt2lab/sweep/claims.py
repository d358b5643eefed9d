"""Who is at work on which point, of several processes on several machines that share a study.

Optuna's database knows that a trial runs, not who runs it. A table beside its own holds a row for
each point at work, which is taken from a process that is gone by one statement that names the row
as it was: of several that try, one succeeds, on any database.
"""

import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any

from sqlalchemy import Column, Integer, MetaData, Row, String, Table, delete, insert, select, update
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError, IntegrityError

from gpt2lab.lock import is_alive, is_here, myself

BEAT_S = 10.0
"""How often a process shows that it is alive."""
SILENCE_S = 90.0
"""After so long without a beat, a process of another machine is taken to be gone."""
CHOOSING = -1
"""Stands for a point's id while a new one is chosen, by one process at a time."""

_table = Table(
    "gpt2lab_claims",
    MetaData(),
    Column("study_id", Integer, primary_key=True, autoincrement=False),
    Column("trial_id", Integer, primary_key=True, autoincrement=False),
    Column("owner", String(32), nullable=False),
    Column("process", String(512), nullable=False),
    Column("beat", Integer, nullable=False),
)


class Claims:
    """The claims of this process on the points of one study."""

    def __init__(self, engine: Engine, study_id: int) -> None:
        self._engine = engine
        self._of_study = _table.c.study_id == study_id
        self._study_id = study_id
        self._owner = uuid.uuid4().hex
        self._seen: dict[int, tuple[tuple[str, int], float]] = {}
        """Of each claim, its owner and beat, and since when they have been seen so."""
        self._takes = count()
        self._beaten_at = time.monotonic()
        with suppress(DBAPIError):  # another may make it between a look and a making
            _table.metadata.create_all(engine)
        _table.metadata.create_all(engine)

    def close(self) -> None:
        """Leave the database: what was written ahead comes to stand in the file itself."""
        self._engine.dispose()

    def take(self, trial_id: int) -> bool:
        """Whether the point is this process's from here on, or was before."""
        where = self._of_study & (_table.c.trial_id == trial_id)
        with self._engine.begin() as connection:
            row = connection.execute(select(_table).where(where)).first()
        if row is None:
            self._seen.pop(trial_id, None)
            return self._insert(trial_id)
        if row.owner == self._owner:
            return True
        if not self._is_gone(trial_id, row):
            return False
        as_it_was = where & (_table.c.owner == row.owner) & (_table.c.beat == row.beat)
        with self._engine.begin() as connection:
            taken = connection.execute(update(_table).where(as_it_was).values(**self._signed()))
        return taken.rowcount == 1

    def holds(self, trial_id: int) -> bool:
        """Whether the point is still this process's; another may have taken it, and ended it."""
        mine = self._of_study & (_table.c.owner == self._owner)
        with self._engine.begin() as connection:
            found = connection.execute(select(_table).where(mine & (_table.c.trial_id == trial_id)))
            return found.first() is not None

    def release(self, trial_id: int) -> None:
        mine = self._of_study & (_table.c.owner == self._owner)
        with self._engine.begin() as connection:
            connection.execute(delete(_table).where(mine & (_table.c.trial_id == trial_id)))

    def beat(self) -> set[int] | None:
        """Show now and then that this process is alive; the ids that are still its own.

        None between two beats. An id is lost where this process was silent for too long.
        """
        if time.monotonic() - self._beaten_at < BEAT_S:
            return None
        self._beaten_at = time.monotonic()
        mine = self._of_study & (_table.c.owner == self._owner)
        with self._engine.begin() as connection:
            connection.execute(update(_table).where(mine).values(beat=_table.c.beat + 1))
            return set(connection.execute(select(_table.c.trial_id).where(mine)).scalars())

    @contextmanager
    def choosing(self) -> Iterator[bool]:
        """Whether this process alone may choose a new point, or take up another's, in the body."""
        is_ours = self.take(CHOOSING)
        try:
            yield is_ours
        finally:
            if is_ours:
                self.release(CHOOSING)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """The same, having waited for it."""
        while not self.take(CHOOSING):
            time.sleep(0.05)
        try:
            yield
        finally:
            self.release(CHOOSING)

    def _insert(self, trial_id: int) -> bool:
        row = {"study_id": self._study_id, "trial_id": trial_id, **self._signed()}
        try:
            with self._engine.begin() as connection:
                connection.execute(insert(_table).values(**row))
        except IntegrityError:  # another was quicker
            return False
        return True

    def _signed(self) -> dict[str, Any]:
        # Each take begins at another beat: what was released and taken anew has not been silent.
        took = next(self._takes)
        return {"owner": self._owner, "process": json.dumps(myself()), "beat": took}

    def _is_gone(self, trial_id: int, row: Row[Any]) -> bool:
        """Whether the owner of a claim is dead: known where it runs, supposed elsewhere."""
        holder = json.loads(row.process)
        if is_here(holder):
            return not is_alive(holder)
        state = (row.owner, row.beat)
        # No clock of another machine is believed: what counts is how long we saw no beat.
        before, since = self._seen.get(trial_id, (None, 0.0))
        if before != state:
            self._seen[trial_id] = (state, time.monotonic())
            return False
        return time.monotonic() - since > SILENCE_S
