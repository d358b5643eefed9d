"""Which items share a row: decided once, by their lengths alone."""

from bisect import bisect_left, insort
from collections import defaultdict
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


class Packing(NamedTuple):
    """Row r holds the items members[offsets[r] : offsets[r + 1]]."""

    members: Ints
    offsets: Ints

    def take(self, rows: Ints) -> tuple[Ints, Ints, Ints]:
        """The items of some rows, one after another, (n,) each.

        Returns:
            the items; the index in `rows` of each one's row; its number within its row, from 0.
        """
        counts = self.offsets[rows + 1] - self.offsets[rows]
        row_of = np.repeat(np.arange(len(rows)), counts)
        number = np.arange(len(row_of)) - (np.cumsum(counts) - counts)[row_of]
        return self.members[self.offsets[rows][row_of] + number], row_of, number


def one_a_row(count: int) -> Packing:
    return Packing(np.arange(count), np.arange(count + 1))


def pack(lengths: Ints, context: int) -> Packing:
    """Best fit, longest first: each item goes where it leaves the least room, or starts a row.

    lengths 3 2 5 2 in a context of 5 make the rows [2], [0, 1], [3].
    """
    rows: list[list[int]] = []
    with_room: dict[int, list[int]] = defaultdict(list)  # rows by the room left in them
    rooms: list[int] = []  # the keys of with_room, ascending
    for item in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[item])
        at = bisect_left(rooms, length)
        if at == len(rooms):
            room, row = context, len(rows)
            rows.append([])
        else:
            room = rooms[at]
            row = with_room[room].pop()
            if not with_room[room]:
                del with_room[room], rooms[at]
        rows[row].append(item)
        left = room - length
        if left not in with_room:
            insort(rooms, left)
        with_room[left].append(row)
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    return Packing(np.concatenate([np.array(row) for row in rows]), offsets)
