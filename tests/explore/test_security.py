"""Who is answered, and what is refused."""

import asyncio

import pytest

from gpt2lab.explorer.security import MOST_BYTES, Doorkeeper, address, hosts_of

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


def ask(keeper, path="/", method="GET", body=(b"",), query="", **headers):
    """Status, headers and text of an answer."""
    sent, parts = [], list(body)

    async def receive():
        part = parts.pop(0) if parts else b""
        return {"type": "http.request", "body": part, "more_body": bool(parts)}

    async def send(message):
        sent.append(message)

    given = {"host": "127.0.0.1:7860", **{k.replace("_", "-"): v for k, v in headers.items()}}
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": [(k.encode(), v.encode()) for k, v in given.items()],
    }
    asyncio.run(keeper(scope, receive, send))
    text = b"".join(m.get("body", b"") for m in sent).decode()
    return sent[0]["status"], dict(sent[0]["headers"]), text


@pytest.fixture
def keeper():
    return Doorkeeper(echo, hosts_of("127.0.0.1", 7860), None, 7860)


def test_the_page_is_answered_and_the_browser_told_to_ask_no_one_else(keeper):
    status, headers, text = ask(keeper)
    assert (status, text) == (200, "0")
    policy = headers[b"content-security-policy"].decode()
    assert "default-src 'self'" in policy
    assert "http" not in policy


@pytest.mark.parametrize("host", ["localhost:7860", "[::1]:7860", "LocalHost:7860"])
def test_this_machine_has_several_names(keeper, host):
    assert ask(keeper, host=host)[0] == 200


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "localhost:80"])
def test_a_browser_leaves_out_the_port_of_http(host):
    keeper = Doorkeeper(echo, hosts_of("127.0.0.1", 80), None, 80)
    assert ask(keeper, host=host, origin=f"http://{host}")[0] == 200
    assert ask(keeper, host="evil.example")[0] == 403


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:7860", "127.0.0.1:7861", "127.0.0.1", "", "127.0.0.1:7860.x"],
)
def test_a_name_that_was_bent_to_this_machine_is_refused(keeper, host):
    status, _, text = ask(keeper, host=host)
    assert status == 403
    assert text.startswith("Host: ")


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "https://127.0.0.1:7860", "http://127.0.0.1:7861", ""]
)
def test_another_page_is_refused(keeper, origin):
    assert ask(keeper, JOIN, "POST", origin=origin)[0] == 403
    assert ask(keeper, JOIN, "POST", origin="http://127.0.0.1:7860")[0] == 200


def test_too_long_a_body_is_refused_by_its_length_or_while_it_is_read(keeper):
    said = str(10_000_000)
    assert ask(keeper, JOIN, "POST", content_length=said)[0] == 413
    assert ask(keeper, JOIN, "POST", body=[b"x" * 1000] * 10_000)[0] == 413
    assert ask(keeper, JOIN, "POST", content_length="-1")[0] == 413
    assert ask(keeper, JOIN, "POST", body=[b"x" * MOST_BYTES])[2] == str(MOST_BYTES)


@pytest.mark.parametrize(
    "path",
    [
        *("/../etc/passwd", "/assets/../../x", "/static//..//x", "/assets/%2e%2e/x"),
        *("/gradio_api/file=/etc/passwd", "/gradio_api/proxy=http://x", "/gradio_api/upload"),
        *("/gradio_api/component_server", "/gradio_api/vibe-code", "/gradio_api/run/x"),
        *("/monitoring", "/docs", "/login", "//", "/assets/", "/config/x"),
    ],
)
def test_what_the_page_never_asks_for_is_not_there(keeper, path):
    for method in ("GET", "POST"):
        assert ask(keeper, path, method)[0] == 404


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT"])
def test_other_methods_are_refused(keeper, method):
    assert ask(keeper, JOIN, method)[0] == 405


def test_with_a_token_nothing_is_answered_without_it():
    keeper = Doorkeeper(echo, None, TOKEN, 7860)
    for wrong in ({}, {"query": "token=wrong-word"}, {"cookie": "gpt2lab_token_7860=x"}):
        status, _, text = ask(keeper, host="lab.example", **wrong)
        assert status == 401
        assert TOKEN not in text
    assert ask(keeper, JOIN, "POST", query=f"token={TOKEN}")[0] == 401


def test_a_token_in_the_address_becomes_a_cookie():
    keeper = Doorkeeper(echo, None, TOKEN, 7860)
    status, headers, _ = ask(keeper, host="lab.example", query=f"token={TOKEN}&text=a+%26b")
    assert (status, headers[b"location"]) == (303, b"/?text=a%20%26b")
    cookie = headers[b"set-cookie"].decode()
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert ask(keeper, host="lab.example", cookie=cookie.split(";")[0])[0] == 200


def test_cookies_of_others_are_passed_over():
    keeper = Doorkeeper(echo, None, TOKEN, 7860)
    own, other_port = f"gpt2lab_token_7860={TOKEN}", "gpt2lab_token_7861=another-word"
    for cookie in (f"{other_port}; {own}", f'a[]="{{"; b; =; {own}', f"{own}; {own[:3]}"):
        assert ask(keeper, host="lab.example", cookie=cookie)[0] == 200
    assert ask(keeper, host="lab.example", cookie=other_port)[0] == 401


def test_an_address_of_too_many_fields_is_refused():
    status, _, text = ask(Doorkeeper(echo, None, TOKEN, 7860), query="a=1&" * 60)
    assert (status, text) == (400, "query: has too many fields; at most 50 are read\n")


def test_of_a_full_queue_one_is_told(keeper):
    async def full(scope, receive, send):
        await send({"type": "http.response.start", "status": 503, "headers": []})

    keeper.app = full
    status, _, text = ask(keeper, JOIN, "POST")
    assert (status, text) == (429, "page: too many acts wait; do it again a little later\n")


def test_even_with_the_cookie_another_page_is_refused():
    keeper = Doorkeeper(echo, None, TOKEN, 7860)
    given = {"host": "lab.example", "cookie": f"gpt2lab_token_7860={TOKEN}"}
    assert ask(keeper, JOIN, "POST", origin="http://evil.example", **given)[0] == 403
    assert ask(keeper, JOIN, "POST", origin="http://lab.example", **given)[0] == 200


def test_the_address_of_the_page():
    assert address("127.0.0.1", 80, None, "lab") == "http://127.0.0.1:80/"
    assert address("::1", 80, None, "lab") == "http://[::1]:80/"
    assert address("0.0.0.0", 80, TOKEN, "lab") == f"http://lab:80/?token={TOKEN}"
