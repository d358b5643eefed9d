"""One run on Weights & Biases for each training, on however many devices and after any resume."""

from collections.abc import Mapping
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger as LightningsWandbLogger

from gpt2lab.checkpoint.folder import files_of
from gpt2lab.checkpoint.manifest import Entry, Manifest, read_manifest
from gpt2lab.config import HIGHER_IS_BETTER
from gpt2lab.metrics import read_metrics

# A run waits for no network longer than this, and tells nobody its command line, its environment or
# the name of its machine. What the hardware does is recorded.
SETTINGS = {
    "init_timeout": 10,  # seconds; wandb takes up to 10 more
    "finish_timeout": 30,
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "save_code": False,
    "host": "",
    "x_disable_meta": True,
    "x_save_requirements": False,  # versions stand in receipt.json
}
UPLOAD_TIMEOUT_S = 3600
"""How long the end waits for checkpoints to be uploaded, where that was asked for."""
STEP = "trainer/global_step"


class WandbLogger(LightningsWandbLogger):
    """Lightning's, with our steps, checkpoints and end.

    A row is an optimizer step: what is logged for one step in several parts becomes one row, and
    what an earlier leg of the run has logged is not logged again.

    Args:
        save_dir: the run folder.
        log_model: checkpoints that become an artifact when training ends: `best`, `last`, or `all`
            that are kept; none where False or None.
        offline: write to the run folder alone, for `wandb sync`.
        settings: in addition to SETTINGS, and before them.
        kwargs: as Lightning's, which takes those of `wandb.init`: entity, project, group, tags ...
    """

    def __init__(
        self,
        *,
        save_dir: str,
        log_model: str | bool | None = False,
        offline: bool = False,
        settings: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        waits = {"finish_timeout": UPLOAD_TIMEOUT_S} if log_model else {}
        kwargs["settings"] = SETTINGS | waits | (settings or {})
        if offline:  # Lightning's own way would make all later runs of this process offline too
            kwargs["mode"] = "offline"
        super().__init__(save_dir=save_dir, **kwargs)
        self._wandb_init.pop(
            "anonymous", None
        )  # of which wandb says that it means nothing any more
        self.folder = Path(save_dir)
        self.chosen = log_model
        # Before a resume drops the rows beyond its step.
        self.rows_before = read_metrics(self.folder / "metrics.csv")

    def log_hyperparams(self, params: Any) -> None:
        super().log_hyperparams(params)
        for name, is_higher_better in HIGHER_IS_BETTER.items():
            best = "max" if is_higher_better else "min"
            self.experiment.define_metric(name, step_metric=STEP, summary=f"last,{best}")

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        if step is not None and step >= self.first_step:
            self.experiment.log({**metrics, STEP: step}, step=step)

    @cached_property
    def first_step(self) -> int:
        """The first one that this run has no row of.

        A server's history cannot be cut: where a run is turned back, its old rows remain.
        """
        run = self.experiment
        if not run.offline:
            return run.starting_step
        legs = list(self.folder.glob(f"wandb/*run-*-{run.id}"))  # this one is there already
        has_earlier = len(legs) > 1 and self.rows_before
        return 1 + int(self.rows_before[-1]["step"]) if has_earlier else 0

    def log_text(self, name: str, text: str, step: int) -> None:  # type: ignore[override]
        """A text as it is; Lightning's makes a table of it, and each table an artifact."""
        import wandb

        self.log_metrics({name: wandb.Html(f"<pre>{escape(text)}</pre>")}, step)

    def finalize(self, status: str) -> None:
        """Log the checkpoints, and end the run: the next one of this process is another."""
        if self._experiment is None:
            return
        manifest = read_manifest(self.folder / "checkpoints")
        if status == "success" and self.chosen and manifest is not None:
            for entry in chosen(manifest, self.chosen):
                self._log_checkpoint(entry, manifest)
        self._experiment.finish(exit_code=0 if status == "success" else 1)

    def _log_checkpoint(self, entry: Entry, manifest: Manifest) -> None:
        import wandb

        artifact = wandb.Artifact(
            f"model-{self.experiment.id}",
            type="model",
            metadata={"step": entry.step, manifest.monitor: entry.metric, "sha256": entry.sha256},
        )
        # Where it lies: nothing is removed any more, and a copy would take as much room again.
        files = files_of(self.folder / "checkpoints" / entry.file)
        for name, file in files.items():
            artifact.add_file(str(file), name=name, policy="immutable", skip_cache=True)
        self.experiment.log_artifact(artifact, aliases=aliases(entry, manifest))


def chosen(manifest: Manifest, which: str | bool) -> list[Entry]:
    """The checkpoints to log, oldest first, for the latest version is to be the newest."""
    best, last = manifest.best, manifest.checkpoints[0] if manifest.checkpoints else None
    named = {"best": [best or last], "last": [last]}
    entries = named.get(str(which), manifest.checkpoints)
    return sorted((e for e in entries if e is not None), key=lambda entry: entry.step)


def aliases(entry: Entry, manifest: Manifest) -> list[str]:
    names = [f"step-{entry.step}"]
    if entry == manifest.best:
        names.append("best")
    if entry == manifest.checkpoints[0]:
        names.append("last")
    return names
