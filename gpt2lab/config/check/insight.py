"""Rules of insight."""

from collections.abc import Iterator

from gpt2lab.config.check.sample import checkpoint_problems, text_problems
from gpt2lab.config.settings.insight import InsightConfig


def insight_problems(config: InsightConfig) -> Iterator[str]:
    yield from checkpoint_problems(config.checkpoint)
    yield from text_problems(config.prompt)
    if not config.to:
        yield f"to: is {'null' if config.to is None else 'empty'}; name a folder to write"
    if config.head is None and config.layer is not None:
        yield f"layer: {config.layer} is given without a head; add head=, or leave layer out"
    if config.layer is None and config.head is not None:
        yield f"head: {config.head} is given without a layer; add layer=, or leave head out"
    most = config.max_tokens + config.add_start_token
    if config.token is not None and config.token >= most:
        yield (
            f"token: {config.token} is none of the max_tokens={config.max_tokens} that are read, "
            "counted from 0; choose a smaller one, or add max_tokens="
        )
