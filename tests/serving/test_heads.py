"""A real server whose clients send heads and bodies without end, or hardly anything at all."""

from __future__ import annotations

import socket
import threading
import time

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from data.errors import CaremodelsError
from serving import problems, routing
from serving.access import heads
from serving.access.heads import Bounded


@pytest.fixture
def port():
    """Of a server that answers the length of a body."""

    async def count(request: Request) -> Response:
        try:
            content = await routing.body(request, "text/plain")
        except CaremodelsError as error:
            answer = problems.response(error)
            answer.headers.update(problems.headers(error))
            return answer
        return PlainTextResponse(str(len(content)))

    app = Starlette(routes=[Route("/", count, methods=["GET", "POST"])])
    server = uvicorn.Server(uvicorn.Config(app, http=Bounded, lifespan="off", log_config=None))
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    running = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    running.start()
    while not server.started:
        time.sleep(0.01)
    yield listening.getsockname()[1]
    server.should_exit = True
    running.join()
    listening.close()


@pytest.fixture
def wire(port):
    with socket.create_connection(("127.0.0.1", port), timeout=20) as opened:
        yield opened


START = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-type: text/plain\r\n"


def answer(wire: socket.socket) -> bytes:
    """All that comes until the server hangs up."""
    received = b""
    try:
        while part := wire.recv(65_536):
            received += part
    except ConnectionResetError:
        pass
    return received


def pour(wire: socket.socket, piece: bytes, times: int) -> bool:
    """Whether it was all taken."""
    try:
        for _ in range(times):
            wire.sendall(piece)
    except OSError:
        return False
    return True


def test_one_connection_carries_many_requests(wire):
    body = b"x" * 100_000
    for _ in range(5):
        wire.sendall(START + b"content-length: 100000\r\n\r\n" + body)
        received = b""
        while not received.endswith(b"100000"):
            received += wire.recv(65_536)
        assert received.startswith(b"HTTP/1.1 200")


def test_a_head_as_large_as_any_client_needs(wire):
    wire.sendall(START + b"x-large: " + b"x" * 30_000 + b"\r\nconnection: close\r\n")
    wire.sendall(b"content-length: 2\r\n\r\nok")
    assert answer(wire).endswith(b"\r\n\r\n2")


@pytest.mark.parametrize("piece", [b"x" * 10_000, b"x\r\nx-more: " + b"y" * 1_000])
def test_a_head_without_end(wire, piece):
    wire.sendall(START + b"x-first: ")
    assert not pour(wire, piece, 10_000)
    assert answer(wire)[:12] in {b"HTTP/1.1 431", b""}


def test_an_address_without_end(wire):
    wire.sendall(b"GET /?")
    assert not pour(wire, b"x" * 10_000, 10_000)


def test_trailers_without_end(wire):
    wire.sendall(START + b"transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-first: ")
    assert not pour(wire, b"x" * 10_000, 10_000)


def test_a_chunked_body_without_end(wire):
    wire.sendall(START + b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n")
    pour(wire, b"10000\r\n" + b"x" * 65_536 + b"\r\n", 100)
    assert answer(wire)[:12] in {b"HTTP/1.1 413", b""}


def test_a_chunked_body_of_many_pieces(wire):
    wire.sendall(START + b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n")
    wire.sendall(b"400\r\n" + b"x" * 1_024 + b"\r\n")
    wire.sendall((b"400\r\n" + b"x" * 1_024 + b"\r\n") * 999 + b"0\r\n\r\n")
    assert answer(wire).endswith(b"1024000")


@pytest.mark.parametrize("sent", [b"", b"POST / HT", START])
def test_a_head_that_does_not_end(port, monkeypatch, sent):
    monkeypatch.setattr(heads, "SECONDS", 0.1)
    with socket.create_connection(("127.0.0.1", port), timeout=20) as wire:
        wire.sendall(sent)
        assert answer(wire).startswith(b"HTTP/1.1 408")


def test_a_body_that_trickles(wire, monkeypatch):
    monkeypatch.setattr(routing, "SLOWEST_BODY", 0.1)
    wire.sendall(START + b"content-length: 100\r\n\r\nx")
    said = answer(wire)
    assert said.startswith(b"HTTP/1.1 408")
    assert b"the body took longer than 0.1 s" in said


def test_a_slow_second_request_on_a_connection(wire, monkeypatch):
    monkeypatch.setattr(heads, "SECONDS", 0.1)
    wire.sendall(START + b"content-length: 2\r\n\r\nok")
    assert wire.recv(65_536).startswith(b"HTTP/1.1 200")
    wire.sendall(b"POST / HT")
    assert answer(wire).startswith(b"HTTP/1.1 408")
