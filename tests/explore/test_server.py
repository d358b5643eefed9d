"""The page's server: bad input, many at once, one machine alone, a clean end."""

import json
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import pytest

from tests.explore.served import WAIT_S, joined, save, served
from tests.insight.models import sort_model, text_model

pytest.importorskip("gradio", reason="the page needs gpt2lab[ui]")


JOIN, JSON = "/gradio_api/queue/join", "application/json"

pytestmark = pytest.mark.slow  # each start loads torch and gradio


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    checkpoint = save(text_model(), tmp_path_factory.mktemp("explore") / "a.ckpt")
    with served(f"checkpoint={checkpoint}", "prompt=ab") as running:
        yield running


def is_alive(page):
    return page.ask("GET", "/")[0] == 200 and page.process.poll() is None


def answers(page, session):
    """What became of each act of a session, in the order in which they were done."""
    connection = socket.create_connection(("127.0.0.1", page.port), timeout=WAIT_S)
    request = f"GET /gradio_api/queue/data?session_hash={session} HTTP/1.0\r\n"
    connection.sendall(f"{request}Host: 127.0.0.1:{page.port}\r\n\r\n".encode())
    with connection, connection.makefile("r", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("data:"):
                message = json.loads(line.removeprefix("data:"))
                if message["msg"] == "process_completed":
                    yield message


def test_it_names_no_other_place_for_the_browser_to_ask(page):
    html = page.ask("GET", "/")[1].decode()
    for place in ("fonts.googleapis", "fonts.gstatic", "cdnjs", "cdn.", "huggingface.co"):
        assert f"//{place}" not in html
    theme = page.ask("GET", "/theme.css")[1].decode()
    assert "url(http" not in theme.replace('"', "").replace("'", "")
    assert "@import" not in theme


def test_it_is_bound_to_the_loopback_alone(page):
    """/proc/net/tcp has every socket that listens, by its address."""
    wanted = f"0100007F:{page.port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    listening = [row[1] for row in rows if row[3] == "0A"]
    assert [place for place in listening if place.endswith(f":{page.port:04X}")] == [wanted]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'{"data": 5}', b"\xff\xfe", b'{"fn_index": "x", "data": []}'],
)
def test_bad_json_is_refused(page, body):
    status, _ = page.ask("POST", JOIN, body, Content_Type=JSON)
    assert 400 <= status < 500
    assert is_alive(page)


def test_a_body_of_ten_megabytes_is_refused(page):
    body = joined("long", 2, None, "x" * 10_000_000)
    try:
        status, text = page.ask("POST", JOIN, body, Content_Type=JSON)
    except (BrokenPipeError, ConnectionResetError):  # it did not wait for the end
        status, text = 413, b"body:"
    assert (status, text[:5]) == (413, b"body:")
    assert is_alive(page)


@pytest.mark.parametrize(
    "path", ["/../../etc/passwd", "/assets/../../../etc/passwd", "/gradio_api/file=/etc/passwd"]
)
def test_a_path_that_leads_out_is_refused(page, path):
    status, text = page.ask("GET", path)
    assert 400 <= status < 500
    assert b"root:" not in text
    assert is_alive(page)


@pytest.mark.parametrize("header", [{"Host": "evil.example"}, {"Origin": "http://evil.example"}])
def test_another_page_of_the_same_browser_is_refused(page, header):
    assert page.ask("POST", JOIN, joined("x", 1, ""), Content_Type=JSON, **header)[0] == 403
    assert page.ask("GET", "/", **header)[0] == 403


def test_a_hundred_requests_at_once_are_served_in_order(page):
    session, opened = "hundred", 1  # the function that opens an address
    for count in range(20):
        act = joined(session, opened, f"?text={'a' * count}")
        assert page.ask("POST", JOIN, act, Content_Type=JSON)[0] == 200
    with ThreadPoolExecutor(80) as pool:
        act = joined(session, opened, "?text=b")
        asked = [pool.submit(page.ask, "POST", JOIN, act, Content_Type=JSON) for _ in range(80)]
        assert [future.result()[0] for future in asked] == [200] * 80
    done = list(islice(answers(page, session), 100))
    assert all(message["success"] for message in done)
    shown = [message["output"]["data"][0] for message in done]
    assert shown == [*(f"0:{'a' * count}" for count in range(20)), *["0:b"] * 80]
    assert is_alive(page)


def test_nonsense_in_an_act_is_answered_and_leaves_no_traceback(tmp_path):
    checkpoint = save(sort_model(), tmp_path / "sort.ckpt")
    with served(f"checkpoint={checkpoint}") as page:
        for number, data in enumerate(([], [5], [{"a": 1}], ["?ids=x"], [None, None, None])):
            session = f"s{number}"
            for fn_index in (*range(12), 999, -1):
                body = joined(session, fn_index, *data, token="x")
                assert page.ask("POST", JOIN, body, Content_Type=JSON)[0] < 500
            _, taken = page.ask("POST", JOIN, joined(session, 1, ""), Content_Type=JSON)
            last = json.loads(taken)["event_id"]  # behind all of them, which wait for one another
            assert any(message["event_id"] == last for message in answers(page, session))
        assert is_alive(page)
        code, out, err = page.interrupt()
    assert (code, out) == (130, "")
    assert "Traceback" not in err


def test_ctrl_c_ends_it_while_a_browser_is_connected(tmp_path):
    checkpoint = save(sort_model(), tmp_path / "sort.ckpt")
    with served(f"checkpoint={checkpoint}") as page:
        connection = socket.create_connection(("127.0.0.1", page.port))
        request = "GET /gradio_api/heartbeat/abc HTTP/1.1\r\n"
        connection.sendall(f"{request}Host: 127.0.0.1:{page.port}\r\n\r\n".encode())
        assert connection.recv(15) == b"HTTP/1.1 200 OK"
        code, out, err = page.interrupt()
        connection.close()
    assert (code, out, err) == (130, "", "")


def test_a_port_that_is_taken_is_refused(page, tmp_path):
    checkpoint = save(sort_model(), tmp_path / "sort.ckpt")
    done = subprocess.run(
        [sys.executable, "-m", "gpt2lab.explore", f"checkpoint={checkpoint}", f"port={page.port}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: port: {page.port} cannot be listened at (")
