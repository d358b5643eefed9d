"""Any task of lm-eval's harness, from the command line."""

import logging
import re
import time
from difflib import get_close_matches
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2lab import __version__
from gpt2lab.config import EvaluateConfig
from gpt2lab.durable import check_writable
from gpt2lab.errors import ConfigError, DataError
from gpt2lab.evaluation.checkpoint import decided_by, key_of, model_of
from gpt2lab.evaluation.hub import stay_offline_if_alone
from gpt2lab.evaluation.results import as_results, folder_of, make, write
from gpt2lab.evaluation.task import Metric
from gpt2lab.loading import located
from gpt2lab.statistics import Z_95, Interval

if TYPE_CHECKING:
    from gpt2lab.model import GPT2


def evaluate_by_lm_eval(config: EvaluateConfig) -> dict[str, Any]:
    """Evaluate a checkpoint at tasks of lm-eval; results are <folder>/lm_eval-<tasks>.json.

    Answers are kept as they come, so that it goes on after a kill.

    Returns:
        What was written.
    Raises:
        ConfigError, DataError, CheckpointError: for what cannot be; if the package is missing,
            before anything heavy.
    """
    assert config.checkpoint is not None
    assert config.lm_eval_tasks is not None
    began = time.perf_counter()
    check_installed()
    checkpoint = Path(config.checkpoint)
    path = located(checkpoint)
    folder = folder_of(checkpoint, config.to)
    check_writable(folder, "to")
    names = [name.strip() for name in config.lm_eval_tasks.split(",") if name.strip()]
    manager = manager_of(config.include_path)
    check_tasks(manager, names)

    model = model_of(path, config)
    deciding = decided_by(path, model)
    make(folder)
    kept = folder / f".lm_eval-{key_of(deciding)}"
    found = asked(model, config, names, manager, kept)
    metrics = metrics_of(found["results"])
    results = {
        "task": "lm_eval",
        "metrics": as_results("lm_eval", metrics, deciding["parameters"]),
        "tasks": {task: of_task(found, task) for task in found["results"]},
        "limit": config.limit,
        "checkpoint": str(path),
        **deciding,
        "lm_eval_version": version("lm_eval"),
        "version": __version__,
        "seconds": round(time.perf_counter() - began, 3),
    }
    told = re.sub(r"[^\w.-]+", "-", "-".join(names))[:100]
    target = folder / f"lm_eval-{told}.json"
    write(target, results)
    for file in folder.glob(f"{kept.name}*"):
        file.unlink()
    return results | {"file": str(target)}


def asked(
    model: "GPT2", config: EvaluateConfig, names: list[str], manager: Any, kept: Path
) -> dict[str, Any]:
    """What lm-eval makes of a model.

    Args:
        kept: how the files begin that answers are kept in.
    """
    import lm_eval

    from gpt2lab.evaluation.lm_eval_adapter import LMEvalAdapter

    found = lm_eval.simple_evaluate(
        model=LMEvalAdapter(model, config.batch_tokens),
        tasks=names,
        task_manager=manager,
        num_fewshot=config.num_fewshot,
        limit=config.limit,
        use_cache=str(kept),
        log_samples=False,
    )
    assert found is not None
    return found


def check_installed() -> None:
    """
    Raises:
        ConfigError: naming the extra.
    """
    if find_spec("lm_eval") is None:
        raise ConfigError(
            "task: lm_eval needs the package lm-eval; run pip install 'gpt2lab[lm-eval]'"
        )


def manager_of(include_path: str | None) -> Any:
    """lm-eval's tasks, and those of a folder.

    Raises:
        ConfigError: if there is no such folder.
    """
    if include_path is not None and not Path(include_path).is_dir():
        raise ConfigError(
            f"include_path: {include_path} is no folder; give one with lm-eval's tasks in yaml"
        )
    stay_offline_if_alone()
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    return TaskManager(include_path=include_path)


def check_tasks(manager: Any, names: list[str]) -> None:
    """
    Raises:
        ConfigError: for a name that lm-eval does not know.
        DataError: if a task's data cannot be had.
    """
    for name in names:
        if name not in manager.all_tasks:
            near = get_close_matches(name, manager.all_tasks, n=1)
            mend = f"did you mean {near[0]}?" if near else "see lm-eval's list: lm-eval ls tasks"
            raise ConfigError(f"lm_eval_tasks: there is no task {name}; {mend}")
    try:
        manager.load(names)
    # A task loads its data by `datasets`, which raises errors of many libraries.
    except Exception as error:
        what = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(
            f"lm_eval_tasks: the data of {', '.join(names)} was looked for where its yaml says, "
            f"most often on the Hugging Face hub, and cannot be had: {what}; see whether it is "
            "there, or write a task of local files and give its folder as include_path="
        ) from error


def metrics_of(results: dict[str, dict[str, Any]]) -> list[Metric]:
    """Each number by its task and name, with 1.96 of lm-eval's standard errors to each side."""
    found = []
    for task, values in results.items():
        for key, value in values.items():
            name, _, way = key.partition(",")
            if name.endswith("_stderr") or not isinstance(value, int | float) or not way:
                continue
            error = values.get(f"{name}_stderr,{way}")
            interval = Interval(value)
            if isinstance(error, int | float):
                interval = Interval(value, value - Z_95 * error, value + Z_95 * error)
            filtered = "" if way == "none" else f"/{way}"
            found.append(Metric(f"{task}/{name}{filtered}", interval, "questions"))
    return found


def of_task(found: dict[str, Any], task: str) -> dict[str, Any]:
    """What decided a task's numbers, as lm-eval tells it."""
    return {
        "version": found.get("versions", {}).get(task),
        "num_fewshot": found.get("n-shot", {}).get(task),
        "questions": found.get("n-samples", {}).get(task, {}).get("effective"),
    }
