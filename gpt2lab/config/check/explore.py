"""Rules of explore."""

import re
from collections.abc import Iterator
from ipaddress import ip_address

from gpt2lab.config.check.sample import checkpoint_problems, text_problems
from gpt2lab.config.settings.explore import ExploreConfig

SHORTEST_TOKEN = 8
WORDS_OF_AN_ADDRESS = re.compile(r"[A-Za-z0-9._~-]*")
"""What needs no quoting in an address."""


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine reach it."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def explore_problems(config: ExploreConfig) -> Iterator[str]:
    yield from checkpoint_problems(config.checkpoint)
    if config.checkpoint2 == "":
        yield "checkpoint2: is empty; name a second checkpoint, or leave it out"
    yield from text_problems(config.prompt)
    if not config.host:
        yield "host: is empty; leave it out for this machine alone"
    elif not is_loopback(config.host) and config.token is None:
        yield (
            f"host: {config.host} lets other machines in; add token= with a secret that the page's "
            "address must hold, or leave host out"
        )
    if config.token is not None and not WORDS_OF_AN_ADDRESS.fullmatch(config.token):
        yield "token: has signs that an address cannot hold; take letters, digits, and . _ ~ -"
    elif config.token is not None and len(config.token) < SHORTEST_TOKEN:
        yield f"token: has {len(config.token)} signs; take at least {SHORTEST_TOKEN}"
