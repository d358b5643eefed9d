"""The server of the page: bound before anything heavy is loaded, ended by Ctrl-C."""

import os
import socket
import sys
import traceback
import webbrowser
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from gpt2lab.errors import ConfigError
from gpt2lab.explorer.security import Doorkeeper, address, hosts_of
from gpt2lab.terminal import tell

if TYPE_CHECKING:
    from gpt2lab.explorer.session import Explorer

CLOSING_S = 1
"""How long open connections may go on after Ctrl-C."""

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"


def bound(host: str, port: int) -> socket.socket:
    """
    Raises:
        ConfigError: if there is no such address here, or the port is taken.
    """
    try:
        family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise ConfigError(f"host: {host} is no address ({error.strerror}); leave it out") from error
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(place)
    except OSError as error:
        listening.close()
        key, value = ("host", host) if port == 0 else ("port", port)
        raise ConfigError(
            f"{key}: {value} cannot be listened at ({error.strerror}); choose another, or port=0"
        ) from error
    return listening


def tell_faults_in_one_line() -> None:
    """Of an act that fails gradio prints a traceback, which no setting of its turns off."""
    import gradio.queueing

    def print_exc() -> None:
        error = sys.exception()
        tell(f"page: an act failed ({type(error).__name__}: {error}); debug=true shows where")

    gradio.queueing.traceback = SimpleNamespace(  # type: ignore[assignment]
        **{**vars(traceback), "print_exc": print_exc}
    )


def application(explorer: "Explorer", title: str, keep: Callable[[Any], Doorkeeper]) -> Doorkeeper:
    import fastapi
    import gradio as gr

    from gpt2lab.explorer.page import page, style, theme

    app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    mounted = gr.mount_gradio_app(
        app, page(explorer, title), "/", theme=theme(), css=style(), footer_links=[],
        run_history=False, ssr_mode=False, enable_monitoring=False, mcp_server=False, pwa=False,
        show_error=False,
    )  # fmt: skip
    return keep(mounted)


def serve(
    explorer: "Explorer",
    title: str,
    listening: socket.socket,
    host: str,
    token: str | None,
    ready: Callable[[str], None],
) -> None:
    """Answer until a signal comes, which is raised again at the end.

    Args:
        ready: told the page's address once it is there.
    """
    import uvicorn

    port = listening.getsockname()[1]
    hosts = hosts_of(host, port) if token is None else None
    app = application(explorer, title, lambda inner: Doorkeeper(inner, hosts, token, port))

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready(address(host, port, token, socket.gethostname()))

    config = uvicorn.Config(
        app, log_level="critical", access_log=False, server_header=False, date_header=False,
        timeout_graceful_shutdown=CLOSING_S, timeout_keep_alive=5, ws="none", lifespan="on",
        proxy_headers=False, h11_max_incomplete_event_size=64 * 1024,
    )  # fmt: skip
    Server(config).run(sockets=[listening])


def show_browser(url: str) -> None:
    if not webbrowser.open(url):
        print("open_browser: no browser was found", file=sys.stderr, flush=True)
