"""Who is answered, and what is refused."""

import asyncio

import pytest

from gpt2lab.explorer.security import MOST_BYTES, Guard, address, hosts_of

JOIN = "/gradio_api/queue/join"
TOKEN = "a-secret-word"


async def echo(scope, receive, send):
    """Reads all of the body, as gradio does, and answers with its length."""
    total, more = 0, True
    while more:
        message = await receive()
        total += len(message.get("body", b""))
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(total).encode()})


def ask(guard, path="/", method="GET", body=(b"",), query="", **headers):
    """Status, headers and text of an answer."""
    sent, parts = [], list(body)

    async def receive():
        part = parts.pop(0) if parts else b""
        return {"type": "http.request", "body": part, "more_body": bool(parts)}

    async def send(message):
        sent.append(message)

    given = {"host": "127.0.0.1:80", **{k.replace("_", "-"): v for k, v in headers.items()}}
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": [(k.encode(), v.encode()) for k, v in given.items()],
    }
    asyncio.run(guard(scope, receive, send))
    text = b"".join(m.get("body", b"") for m in sent).decode()
    return sent[0]["status"], dict(sent[0]["headers"]), text


@pytest.fixture
def guard():
    return Guard(echo, hosts_of("127.0.0.1", 80), None)


def test_the_page_is_answered_and_the_browser_told_to_ask_no_one_else(guard):
    status, headers, text = ask(guard)
    assert (status, text) == (200, "0")
    policy = headers[b"content-security-policy"].decode()
    assert "default-src 'self'" in policy
    assert "http" not in policy


@pytest.mark.parametrize("host", ["localhost:80", "[::1]:80", "LocalHost:80"])
def test_this_machine_has_several_names(guard, host):
    assert ask(guard, host=host)[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1:81", "127.0.0.1", "", "127.0.0.1:80.x"]
)
def test_a_name_that_was_bent_to_this_machine_is_refused(guard, host):
    status, _, text = ask(guard, host=host)
    assert status == 403
    assert text.startswith("Host: ")


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "https://127.0.0.1:80", "http://127.0.0.1:81", ""]
)
def test_another_page_is_refused(guard, origin):
    assert ask(guard, JOIN, "POST", origin=origin)[0] == 403
    assert ask(guard, JOIN, "POST", origin="http://127.0.0.1:80")[0] == 200


def test_too_long_a_body_is_refused_by_its_length_or_while_it_is_read(guard):
    said = str(10_000_000)
    assert ask(guard, JOIN, "POST", content_length=said)[0] == 413
    assert ask(guard, JOIN, "POST", body=[b"x" * 1000] * 10_000)[0] == 413
    assert ask(guard, JOIN, "POST", content_length="-1")[0] == 413
    assert ask(guard, JOIN, "POST", body=[b"x" * MOST_BYTES])[2] == str(MOST_BYTES)


@pytest.mark.parametrize(
    "path",
    [
        *("/../etc/passwd", "/assets/../../x", "/static//..//x", "/assets/%2e%2e/x"),
        *("/gradio_api/file=/etc/passwd", "/gradio_api/proxy=http://x", "/gradio_api/upload"),
        *("/gradio_api/component_server", "/gradio_api/vibe-code", "/gradio_api/run/x"),
        *("/monitoring", "/docs", "/login", "//", "/assets/", "/config/x"),
    ],
)
def test_what_the_page_never_asks_for_is_not_there(guard, path):
    for method in ("GET", "POST"):
        assert ask(guard, path, method)[0] == 404


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT"])
def test_other_methods_are_refused(guard, method):
    assert ask(guard, JOIN, method)[0] == 405


def test_with_a_token_nothing_is_answered_without_it():
    guard = Guard(echo, None, TOKEN)
    for wrong in ({}, {"query": "token=wrong-word"}, {"cookie": "gpt2lab_token=x"}):
        status, _, text = ask(guard, host="lab.example", **wrong)
        assert status == 401
        assert TOKEN not in text
    assert ask(guard, JOIN, "POST", query=f"token={TOKEN}")[0] == 401


def test_a_token_in_the_address_becomes_a_cookie():
    guard = Guard(echo, None, TOKEN)
    status, headers, _ = ask(guard, host="lab.example", query=f"token={TOKEN}&text=a+%26b")
    assert (status, headers[b"location"]) == (303, b"/?text=a%20%26b")
    cookie = headers[b"set-cookie"].decode()
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert ask(guard, host="lab.example", cookie=cookie.split(";")[0])[0] == 200


def test_even_with_the_cookie_another_page_is_refused():
    guard = Guard(echo, None, TOKEN)
    given = {"host": "lab.example", "cookie": f"gpt2lab_token={TOKEN}"}
    assert ask(guard, JOIN, "POST", origin="http://evil.example", **given)[0] == 403
    assert ask(guard, JOIN, "POST", origin="http://lab.example", **given)[0] == 200


def test_the_address_of_the_page():
    assert address("127.0.0.1", 80, None, "lab") == "http://127.0.0.1:80/"
    assert address("::1", 80, None, "lab") == "http://[::1]:80/"
    assert address("0.0.0.0", 80, TOKEN, "lab") == f"http://lab:80/?token={TOKEN}"
