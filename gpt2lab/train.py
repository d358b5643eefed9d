"""python -m gpt2lab.train: train a GPT-2; the run folder's path is the last line of stdout."""

import argparse
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from gpt2lab.command_line import arguments, print_settings, show_errors
from gpt2lab.config import TextConfig, TrainConfig
from gpt2lab.config.compose import Composed, from_config, settings_from


def main() -> int:
    flags = arguments("train", "Train a GPT-2, and leave a run folder that says all about it.")
    if flags.multirun:
        return multirun(flags)
    composed = settings_from("train", flags.overrides, flags.config_dir, saved_settings)
    if flags.cfg:
        print_settings(composed.printable)
        return 0
    return train(composed)


def train(composed: Composed) -> int:
    prepare_text(composed.settings)
    from gpt2lab.experiment import fit  # here, so that help and mistakes need not wait for torch

    result = fit(composed.settings, composed.printable)
    print(result.folder, flush=True)
    return 128 + result.signal if result.signal else 0


def prepare_text(settings: TrainConfig) -> None:
    """Token files, where the data is text: what is wrong with it comes before torch is loaded."""
    if not isinstance(settings.data, TextConfig):
        return
    from gpt2lab.data.prepare import Needs, prepare
    from gpt2lab.data.tokens import open_corpus
    from gpt2lab.run_folder import check_free, check_writable

    check_writable(Path(settings.runs_dir))
    if settings.name is not None and settings.resume is None:
        check_free(Path(settings.runs_dir) / settings.name)
    if settings.trainer.get("accelerator") in ("gpu", "cuda"):
        from gpt2lab.experiment import choose_precision

        choose_precision(settings)  # a GPU that is not there is found out before text is read
    open_corpus(prepare(settings.data, Path(settings.data_dir), Needs.of(settings)))


def saved_settings(settings: TrainConfig) -> dict[str, Any] | None:
    from gpt2lab.resume import saved_settings

    return saved_settings(settings)


def multirun(flags: argparse.Namespace) -> int:
    """Every combination of comma-separated values, each a run `<name>-<job>` of its own."""
    from gpt2lab.config.multirun import launch

    codes = launch("train", flags.overrides, flags.config_dir, job, before=prepare_text)
    return max(codes, default=0)


def job(cfg: DictConfig) -> int:
    """One combination, in whatever process Hydra's launcher runs it."""
    from hydra.core.hydra_config import HydraConfig

    cfg.name = f"{cfg.name}-{HydraConfig.get().job.num}"
    return train(from_config(cfg))


if __name__ == "__main__":
    show_errors(main)
