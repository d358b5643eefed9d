"""When a training saves, what it keeps, and what it knows to be saved."""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from gpt2lab.checkpoint.background import Background, free_memory, snapshot
from gpt2lab.checkpoint.find import recovered
from gpt2lab.checkpoint.folder import remove
from gpt2lab.checkpoint.manifest import (
    MANIFEST,
    Entry,
    Manifest,
    kept,
    known_best,
    name_of,
    read_manifest,
    step_files,
    temporary_of,
    write_manifest,
)
from gpt2lab.checkpoint.reading import Content
from gpt2lab.checkpoint.writing import (
    Written,
    bytes_needed,
    put,
    told,
    written,
    written_by_ranks,
)
from gpt2lab.ranks import Board


class Checkpoints(Callback):
    """Saves every n steps and at the end, after the step's evaluation; the last to hear of one.

    `best` is the best evaluated one among those saved, by the metric that `monitor` names.

    A save has three parts: `_save` takes the state between two steps; Lightning's strategy brings
    it to the first rank and calls `_deliver`, which copies it where there is memory; `_write` puts
    it on the disk, in a thread or here. Where the state is sharded, all ranks deliver and write,
    and know what is saved.

    Args:
        content: what stands in every checkpoint besides Lightning's: the settings, the data's
            fingerprint and tokenizer; plain types only.
        run: the id in the run's receipt.
        keep: newest checkpoints that are kept, besides the best.
        keep_every: a checkpoint at a multiple of so many steps is kept for good.
    """

    def __init__(
        self,
        folder: Path,
        *,
        every: int,
        eval_every: int,
        monitor: str,
        content: Content,
        run: str = "",
        keep: int = 2,
        keep_every: int | None = None,
    ) -> None:
        self.folder = folder
        self.every = every
        self.eval_every = eval_every
        self.monitor = monitor
        self.content = content | {"run": run}
        self.keep = keep
        self.keep_every = keep_every
        self.saved: list[Entry] = []
        """What is on disk of the steps that this training goes on from, newest first."""
        self.best: Entry | None = None
        """The best evaluated one of all those steps, whether or not it is still there."""
        self.background = Background()
        self.board: Board | None = None
        """Where ranks agree on a save that each has its part in; None where the first alone saves.
        """
        self._saves = 0

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        if pl_module.is_sharded:
            self.board = Board()

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: Content
    ) -> None:
        checkpoint |= self.content

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: Content
    ) -> None:
        """Know what is there; what lies beyond this step is no longer on record.

        Its files go with the first save only.
        """
        manifest = read_manifest(self.folder)
        if manifest is None:
            manifest = self._manifest(recovered(self.folder))
        known = [entry for entry in manifest.checkpoints if entry.step <= checkpoint["global_step"]]
        if manifest.monitor != self.monitor:
            known = [replace(entry, metric=None) for entry in known]
        best, monitor = known_best(checkpoint)
        if best is not None and monitor == self.monitor:
            # Its file may have given way to a better one that this training drops again.
            self.best = best
            known = [replace(e, metric=best.metric) if e.file == best.file else e for e in known]
        self.saved = [entry for entry in known if (self.folder / entry.file).exists()]
        if trainer.is_global_zero and self.saved != manifest.checkpoints:
            # Killed before that save, a run that was turned back goes on from where it was turned.
            write_manifest(self.folder, self._manifest(self.saved))

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.background.check()
        due = trainer.global_step % self.every == 0 or trainer.should_stop
        evaluation_follows = trainer.global_step % self.eval_every == 0 or trainer.should_stop
        if due and not (evaluation_follows and trainer.enable_validation):
            self.save(trainer, None)

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        with pl_module.update_lock:
            pl_module.evaluated_step = trainer.global_step
        due = trainer.global_step % self.every == 0 or trainer.should_stop
        if due or self._is_saved(trainer):
            self.save(trainer, self._metric(trainer))

    def on_train_end(self, *_: Any) -> None:
        self.background.wait()

    def on_exception(self, *_: Any) -> None:
        self.background.join()

    def newest(self) -> Path | None:
        """The last whole file of this training."""
        self.background.join()
        return self.folder / self.saved[0].file if self.saved else None

    def save(self, trainer: Trainer, metric: float | None) -> None:
        """Save the state between two steps: in a thread, or here if training is about to stop.

        Raises:
            RunError: if this one cannot be written, or the one before could not.
        """
        self.background.wait()
        self._save(trainer, metric, in_background=not trainer.should_stop)

    def save_now(self, trainer: Trainer) -> None:
        """See to it that the state at trainer.global_step is on disk, from whatever thread.

        Raises:
            RunError: if it cannot be written.
        """
        with suppress(Exception):  # an earlier save may have failed: that is what this one mends
            self.background.wait()
        self._save(trainer, self._metric(trainer), in_background=False)

    def _metric(self, trainer: Trainer) -> float | None:
        """What the evaluation of this very step came to, if it has been held."""
        module: Any = trainer.lightning_module
        is_evaluated = module.evaluated_step == trainer.global_step
        return module.latest.get(self.monitor) if is_evaluated else None

    def _is_saved(self, trainer: Trainer) -> bool:
        return bool(self.saved) and self.saved[0].step == trainer.global_step

    def _save(self, trainer: Trainer, metric: float | None, *, in_background: bool) -> None:
        if metric is not None and not math.isfinite(metric):
            metric = None
        with trainer.lightning_module.update_lock:  # type: ignore[union-attr]
            if self._is_saved(trainer):
                self._note(trainer, metric)
                return
            step = trainer.global_step
            for logger in trainer.loggers:  # no row up to this step is missing after a kill
                logger.save()
            content = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
            entry = Entry(name_of(step), step, bytes=0, sha256="", metric=metric)
            best = self._better(entry)
            content["best"] = best and {
                "file": best.file,
                "step": best.step,
                "metric": best.metric,
                "monitor": self.monitor,
            }
            # Not by trainer.save_checkpoint, at whose end all ranks wait for each other: one thread
            # of one rank may be all that is left to save.
            trainer.strategy.save_checkpoint(
                content,
                self.folder / entry.file,
                storage_options=partial(self._deliver, entry, in_background),
            )

    def _note(self, trainer: Trainer, metric: float | None) -> None:
        """Put on record what an evaluation came to that was held after its step had been saved.

        The file stays as it is: to replace it under its name would take a moment in which the
        record has another checksum than the file. So a resume from it holds the evaluation again.
        """
        if metric is None:
            return
        entry = replace(self.saved[0], metric=metric)
        self.best = self._better(entry)
        if entry == self.saved[0]:
            return
        self.saved[0] = entry
        if trainer.is_global_zero:
            with told(self.folder / MANIFEST, {}):
                write_manifest(self.folder, self._manifest(self.saved))

    def _deliver(self, entry: Entry, in_background: bool, content: Content, path: Path) -> None:
        """Lightning's way to the file ends here, on the first rank."""
        self._saves += 1
        count = self.board.size if self.board else 1  # as many as may take memory of this machine
        if in_background and free_memory() >= 2 * bytes_needed(content) * count:
            self.background.start(partial(self._write, entry, snapshot(content), path))
        else:
            self._write(entry, content, path)

    def _write(self, entry: Entry, content: Content, path: Path) -> None:
        """At every moment, some whole checkpoint is on disk under its name and on record."""
        is_first = self.board is None or self.board.rank == 0
        with told(path, content):
            with self._written(content, path) as file:
                entry = replace(entry, bytes=file.bytes, sha256=file.sha256)
                manifest = self._manifest([entry, *self.saved])
                if is_first:
                    with recorded(self.folder, manifest):
                        put(file.path, path)
            self.best = self._better(entry)
            # Only now, the new one being whole and named, may old ones go.
            self.saved = kept(manifest, self.keep, self.keep_every)
            if is_first:
                prune(self.folder, self.saved)
                write_manifest(self.folder, self._manifest(self.saved))

    def _written(self, content: Content, path: Path) -> AbstractContextManager[Written]:
        if self.board is None:
            return written(content, path)
        return written_by_ranks(content, path, self.board, f"save-{self._saves}")

    def _manifest(self, checkpoints: list[Entry]) -> Manifest:
        run = {"id": self.content["run"], "name": self.folder.absolute().parent.name}
        return Manifest(run, self.monitor, checkpoints)

    def _better(self, entry: Entry) -> Entry | None:
        return self._manifest([entry, self.best] if self.best else [entry]).best


@contextmanager
def recorded(folder: Path, manifest: Manifest) -> Iterator[None]:
    """A manifest on disk; after an error in the body, the one before it."""
    before = read_manifest(folder)
    try:
        write_manifest(folder, manifest)
        yield
    except BaseException:
        with suppress(OSError):
            if before is not None:
                write_manifest(folder, before)
            else:
                (folder / MANIFEST).unlink(missing_ok=True)
        raise


def prune(folder: Path, checkpoints: list[Entry]) -> None:
    names = {entry.file for entry in checkpoints}
    for path in step_files(folder):
        if path.name not in names:
            with suppress(OSError):  # the next save tries again
                remove(path, temporary_of(path))
