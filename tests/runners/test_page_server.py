"""The server that a browser's page talks to."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit.runners.javascript.page_server import PageServer, serving


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PageServer]:
    (tmp_path / "page.html").write_text("<p>hello")
    (tmp_path / "secret.txt").write_text("not for the page")
    server = PageServer(
        sends={"page.html": tmp_path / "page.html"},
        takes={"job/out/0000.ekt": tmp_path / "0000.ekt", "job/result.json": tmp_path / "result.json"},
        names=["page.html"],
        peak_memory=lambda: 7,
    )
    with serving(server):
        yield server


def ask(
    server: PageServer, path: str, body: bytes | None = None, host: str = ""
) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection(server.host, timeout=10)
    headers = {"Host": host} if host else {}
    connection.request("GET" if body is None else "POST", path, body, headers)
    answer = connection.getresponse()
    found = answer.status, answer.read(), dict(answer.getheaders())
    connection.close()
    return found


def test_listed_files_are_sent_to_an_isolated_page(server: PageServer) -> None:
    status, body, headers = ask(server, f"{server.prefix}page.html")
    assert (status, body) == (200, b"<p>hello")
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert ask(server, f"{server.prefix}names")[1] == b'["page.html"]'
    assert ask(server, f"{server.prefix}memory")[1] == b"7"


@pytest.mark.parametrize("path", ["secret.txt", "../secret.txt", "%2e%2e/secret.txt", "", "/etc/passwd"])
def test_nothing_else_is_sent(server: PageServer, path: str) -> None:
    assert ask(server, f"{server.prefix}{path}")[0] == 404


def test_without_the_secret_word_there_is_nothing(server: PageServer) -> None:
    assert ask(server, "/page.html")[0] == 404
    assert ask(server, "/job/result.json", b"{}")[0] == 404


def test_under_another_name_there_is_nothing(server: PageServer) -> None:
    assert ask(server, f"{server.prefix}page.html", host="example.com")[0] == 404


def test_results_are_taken_and_the_last_one_ends_the_run(server: PageServer, tmp_path: Path) -> None:
    assert ask(server, f"{server.prefix}job/out/0000.ekt", b"EKT1")[0] == 200
    assert not server.ended.is_set()
    assert ask(server, f"{server.prefix}job/result.json", b"{}")[0] == 200
    assert server.ended.wait(5)
    assert (tmp_path / "0000.ekt").read_bytes() == b"EKT1"


@pytest.mark.parametrize("path", ["page.html", "job/out/0001.ekt", "../0000.ekt"])
def test_nothing_else_is_taken(server: PageServer, path: str) -> None:
    assert ask(server, f"{server.prefix}{path}", b"x")[0] == 404


def test_a_failure_is_kept_in_the_words_of_the_page(server: PageServer) -> None:
    ask(server, f"{server.prefix}failure", b"no such op")
    assert server.ended.wait(5)
    assert server.failure == "no such op"


def test_a_page_that_goes_away_is_lost(server: PageServer) -> None:
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as page:
        page.sendall(f"GET {server.prefix}alive HTTP/1.1\r\nHost: {server.host}\r\n\r\n".encode())
        assert page.recv(1000).startswith(b"HTTP/1.1 200")
        time.sleep(0.5)
        assert not server.lost
    assert server.ended.wait(10)
    assert server.lost
