"""Who is answered, and what may be asked: a layer around the whole page.

The page is for one person at this machine. A page of another site, which the same person's browser
may have open, is turned away by Host and Origin: it can name neither. By a content security policy
the browser itself asks no one but this page.
"""

import hmac
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MOST_BYTES = 1_500_000
"""Of a request; the longest text that the page sends takes less, 6 for each of its signs."""
MOST_FIELDS = 50
"""Of an address."""
POLICY = "; ".join(
    (
        "default-src 'self'",
        # gradio writes its settings into the page, and makes functions of templates
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
ASKED = {
    "GET": re.compile(
        r"/|/config|/theme\.css|/favicon\.ico|/manifest\.json|/robots\.txt|/pwa_icon(/\d+)?"
        r"|/(assets|static|svelte)/[\w./-]+"
        r"|/gradio_api/(queue/data|startup-events|app_id|info|theme\.css|heartbeat/\w+)"
    ),
    "POST": re.compile(r"/gradio_api/(queue/join|cancel|reset)/?"),
}
"""What the page itself asks for; gradio offers more: uploads, files, proxies."""


class RefusedError(Exception):
    def __init__(self, status: int, problem: str) -> None:
        self.status, self.problem = status, problem
        super().__init__(problem)


class Doorkeeper:
    """Answers what is in order, and refuses the rest with 4xx and a line that says why.

    Args:
        hosts: what a browser may call this page, as `127.0.0.1:7860`; None for anything, where a
            token is asked for.
        token: must stand in the address, or in the cookie that is set for it.
        port: stands in the cookie's name, as a browser sends a machine's cookies to all its ports.
    """

    def __init__(
        self, app: App, hosts: frozenset[str] | None, token: str | None, port: int
    ) -> None:
        self.app, self.hosts, self.token = app, hosts, token
        self.cookie = f"gpt2lab_token_{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        # Nothing here speaks over a websocket: one is closed by the server.

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def answer(message: MutableMapping[str, Any]) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                if message["status"] == 503 and scope["method"] == "POST":
                    raise RefusedError(429, "page: too many acts wait; do it again a little later")
                if message["status"] >= 500 and scope["method"] == "POST":
                    # An act is only put in line here: what fails at that was not understood.
                    raise RefusedError(400, "body: is no act of this page")
                has_begun = True
                message["headers"] = [*message.get("headers", []), *HEADERS]
            await send(message)

        try:
            headers = headers_of(scope)
            self._check_place(headers)
            if self._is_new(scope, headers):
                assert self.token is not None
                return await self._let_in(scope, answer, self.token)
            check_request(scope, headers)
            await self.app(scope, limited(receive), answer)
        except RefusedError as refused:
            if not has_begun:
                await say(answer, refused.status, refused.problem)

    def _check_place(self, headers: dict[str, str]) -> None:
        host = headers.get("host", "").lower()
        if self.hosts is not None and host not in self.hosts:
            raise RefusedError(
                403, f"Host: {host!r} is not this page; open the address that was printed"
            )
        origin = headers.get("origin")
        if origin is not None and origin.lower() != f"http://{host}":
            raise RefusedError(403, f"Origin: {origin!r} is another page; open this one itself")

    def _is_new(self, scope: Scope, headers: dict[str, str]) -> bool:
        """Whether the token stands in the address; then a cookie takes its place.

        Raises:
            RefusedError: if it stands nowhere.
        """
        if self.token is None:
            return False
        given = fields_of(scope).get("token", [])
        if given and scope["method"] == "GET" and is_same(given[-1], self.token):
            return True
        if not is_same(cookies_of(headers).get(self.cookie, ""), self.token):
            raise RefusedError(401, "token: is missing or wrong; open the address that was printed")
        return False

    async def _let_in(self, scope: Scope, send: Send, token: str) -> None:
        kept = "&".join(
            f"{quote(name)}={quote(value)}"
            for name, values in fields_of(scope).items()
            for value in values
            if name != "token"
        )
        # Lax: it comes along where a link to this page is followed, whose acts all are POST.
        cookie = f"{self.cookie}={token}; Path=/; HttpOnly; SameSite=Lax"
        headers = [(b"location", f"/?{kept}".encode()), (b"set-cookie", cookie.encode())]
        await send({"type": "http.response.start", "status": 303, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


def is_same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(), wanted.encode())


def fields_of(scope: Scope) -> dict[str, list[str]]:
    """
    Raises:
        RefusedError: for more of them than an address has.
    """
    query = scope["query_string"].decode("latin-1")
    try:
        return parse_qs(query, keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError as error:
        raise RefusedError(
            400, f"query: has too many fields; at most {MOST_FIELDS} are read"
        ) from error


def cookies_of(headers: dict[str, str]) -> dict[str, str]:
    """By their names; what others have set need not be in order."""
    pairs = (part.partition("=") for part in headers.get("cookie", "").split(";"))
    return {name.strip(): value.strip() for name, _, value in pairs}


def headers_of(scope: Scope) -> dict[str, str]:
    """
    Raises:
        RefusedError: if one that decides stands there twice.
    """
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        key = name.decode("latin-1").lower()
        if key in found and key in ("host", "origin", "content-length"):
            raise RefusedError(400, f"{key}: stands there twice")
        found[key] = value.decode("latin-1")
    return found


def check_request(scope: Scope, headers: dict[str, str]) -> None:
    """
    Raises:
        RefusedError: for what the page never asks for, or too much of it.
    """
    path = scope["path"]
    method = "GET" if scope["method"] == "HEAD" else scope["method"]
    if method not in ASKED:
        raise RefusedError(405, f"{method}: is not answered here")
    if ".." in path or not ASKED[method].fullmatch(path):
        raise RefusedError(404, "path: there is nothing here")
    length = headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > MOST_BYTES:
        raise RefusedError(413, f"body: has {length} bytes; at most {MOST_BYTES:,} are read")


def limited(receive: Receive) -> Receive:
    """The same, which refuses to read more than is allowed, whatever was said of the length."""
    total = 0

    async def read() -> MutableMapping[str, Any]:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > MOST_BYTES:
            raise RefusedError(413, f"body: has more than {MOST_BYTES:,} bytes; send less")
        return message

    return read


async def say(send: Send, status: int, problem: str) -> None:
    body = f"{problem}\n".encode("utf-8", errors="replace")
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def hosts_of(host: str, port: int) -> frozenset[str]:
    """What a browser at this machine may call the page."""
    names = {host.lower(), "localhost", "127.0.0.1", "::1"}
    bare = {f"[{name}]" if ":" in name else name for name in names}
    # A browser leaves out the port that is http's own.
    return frozenset(f"{name}:{port}" for name in bare) | (bare if port == 80 else frozenset())


def address(host: str, port: int, token: str | None, machine: str) -> str:
    """Where the page is, as a link.

    Args:
        machine: the name that stands for `host` where that is every address of this machine.
    """
    name = machine if host in ("0.0.0.0", "::") else host
    place = urlsplit(f"http://[{name}]:{port}/" if ":" in name else f"http://{name}:{port}/")
    return place.geturl() + (f"?token={token}" if token else "")
