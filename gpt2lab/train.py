"""python -m gpt2lab.train: train a GPT-2; the run folder's path is the last line of stdout."""

import argparse
import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from gpt2lab.command_line import arguments, print_settings, show_errors
from gpt2lab.config import TextConfig, TrainConfig
from gpt2lab.config.compose import Composed, from_config, settings_from
from gpt2lab.errors import ConfigError
from gpt2lab.heap import importing
from gpt2lab.launch import check_devices
from gpt2lab.launch.devices import share_cores
from gpt2lab.launch.started import started, with_devices
from gpt2lab.run_folder import is_finished
from gpt2lab.slurm import earlier_run


def main() -> int:
    if (place := started()) is None:
        return run()
    from gpt2lab.launch.joined import one_of_several

    return one_of_several(place, run)


def run() -> int:
    flags = arguments("train", "Train a GPT-2, and leave a run folder that says all about it.")
    if flags.multirun:
        return multirun(flags)
    composed = composed_from(flags)
    if flags.cfg:
        print_settings(composed.printable)
        return 0
    if (folder := earlier_run(composed.settings)) is not None:
        return go_on(folder, flags)
    return train(composed)


def composed_from(flags: argparse.Namespace, *overrides: str) -> Composed:
    chosen = [*with_devices(flags.overrides), *overrides]
    return settings_from("train", chosen, flags.config_dir, saved_settings)


def go_on(folder: Path, flags: argparse.Namespace) -> int:
    """What SLURM has started again, in the folder of its first start."""
    is_over = is_finished(folder)
    if is_first():
        what = "is finished" if is_over else "goes on"
        print(f"SLURM has started this job again; its run {what}: {folder}", file=sys.stderr)
    if is_over:
        print(folder, flush=True)
        return 0
    return train(composed_from(flags, f"name={folder.name}", "resume=auto"))


def is_first() -> bool:
    """Whether this process speaks: alone, or the first of the ranks that others have started."""
    place = started()
    return place is None or place.rank == 0


def train(composed: Composed) -> int:
    check_devices(composed.settings)
    if is_first():
        if started() is not None:
            from gpt2lab.launch.joined import member

            member()  # the store, before what may take long: the others look for it
        check_and_prepare(composed.settings)
    # here, so that help and mistakes need not wait for torch
    with importing():
        from gpt2lab.experiment import fit_and_show

    return fit_and_show(composed.settings, composed.printable)


def check_and_prepare(settings: TrainConfig) -> None:
    """Check the run's folder and first weights, and prepare its corpus: before torch is loaded."""
    from gpt2lab.durable import check_writable
    from gpt2lab.init_from import source_of
    from gpt2lab.run_folder import check_free, folder_of

    check_writable(Path(settings.runs_dir), "runs_dir")
    if settings.name is not None and settings.resume is None:
        check_free(folder_of(settings))
    if settings.resume is None:  # what goes on has its weights
        source_of(settings)
    if not isinstance(settings.data, TextConfig):
        return
    from gpt2lab.data.prepare import Needs, prepare
    from gpt2lab.data.tokens import open_corpus

    open_corpus(prepare(settings.data, Path(settings.data_dir), Needs.of(settings)))


def saved_settings(settings: TrainConfig) -> dict[str, Any] | None:
    from gpt2lab.lock import check_unlocked
    from gpt2lab.run_folder import check_resume, folder_of

    check_resume(settings)
    check_unlocked(folder_of(settings))  # before torch is loaded
    from gpt2lab.resume import saved_settings as read_saved

    return read_saved(settings)


def multirun(flags: argparse.Namespace) -> int:
    """Every combination of comma-separated values, each a run `<name>-<job>` of its own."""
    from gpt2lab import train as this  # not __main__, which another process has not
    from gpt2lab.config.multirun import launch

    if (place := started()) is not None:
        raise ConfigError(
            f"--multirun: {place.by} has started {place.world_size} ranks, each of which would run "
            "all jobs; start the multirun alone"
        )
    codes = launch(
        "train", flags.overrides, flags.config_dir, this.job, check_and_prepare, share_cores
    )
    return max(codes, default=0)


def job(cfg: DictConfig) -> int:
    """One combination, in whatever process Hydra's launcher runs it."""
    from hydra.core.hydra_config import HydraConfig

    for logger in filter(None, cfg.logger.values()):
        if "group" in logger and logger.group is None:
            logger.group = cfg.name
    cfg.name = f"{cfg.name}-{HydraConfig.get().job.num}"
    composed = from_config(cfg)
    if composed.settings.world_size == 1 or started() is not None:
        return train(composed)
    from gpt2lab.launch.job import fit_in_process

    check_devices(composed.settings)
    check_and_prepare(composed.settings)
    return fit_in_process(composed)


if __name__ == "__main__":
    show_errors(main)
