"""Work beside the training: a thread that writes, and the memory for what it writes from."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from gpt2lab.heap import give_back


class Background:
    """One action at a time in a thread; its error is raised where the next one is asked for."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, action: Callable[[], None]) -> None:
        self.wait()
        # No daemon: the program ends when the write is done, even if an error ends it.
        self._thread = threading.Thread(target=self._run, args=(action,), name="checkpoint")
        self._thread.start()

    def _run(self, action: Callable[[], None]) -> None:
        try:
            action()
        except BaseException as error:
            self._error = error
        give_back()  # the copy that was written

    def join(self) -> None:
        """Return when nothing is under way any more, however it went."""
        if self._thread is not None:
            self._thread.join()

    def wait(self) -> None:
        self.join()
        self.check()

    def check(self) -> None:
        """Raise what went wrong, once."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error


def snapshot(value: Any) -> Any:
    """A copy that no later step can change, its tensors on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: snapshot(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(snapshot, value))
    return value


def free_memory() -> int:
    """Bytes that may be taken without swapping, or being killed by a container's limit; 0 if it
    is not known."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        (available,) = (int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, ValueError):
        return 0
    return min([available * 1024, *_free_in_groups()])


def _free_in_groups() -> Iterator[int]:
    """What each limit on this process and its like leaves (man cgroups, both versions)."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            root, limit, used = Path("/sys/fs/cgroup"), "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            root = Path("/sys/fs/cgroup/memory")
            limit, used = "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        folder = root / group.lstrip("/")
        for place in [folder, *folder.parents]:
            if place == root or root in place.parents:
                try:
                    free = int((place / limit).read_text()) - int((place / used).read_text())
                    yield free + _file_cache(place)
                except (OSError, ValueError):
                    continue  # no such group in this view of the system, or no limit ("max")


def _file_cache(group: Path) -> int:
    """Bytes counted as used that are given back when asked for: files read and written before."""
    lines = (group / "memory.stat").read_text().splitlines()
    values = dict(line.split() for line in lines)
    return int(values.get("total_inactive_file", values.get("inactive_file", 0)))
