"""Programs that answer at an endpoint: a store of torch, or another program."""

import os
import socket
import threading
from contextlib import suppress

import pytest
from torch.distributed import TCPStore

from mmpt.cli.endpoint import Answer, ask, listener

HERE = "127.0.0.1"


def test_a_store_is_recognised_as_a_launcher():
    store = TCPStore(HERE, 0, is_master=True, wait_for_workers=False)
    assert ask(HERE, store.port, 30) == (Answer.LAUNCHER, "")
    assert ask(HERE, store.port, 30) == (Answer.LAUNCHER, "")


def test_a_program_that_closes_connections_is_recognised():
    with socket.create_server((HERE, 0)) as server:
        threading.Thread(target=lambda: server.accept()[0].close()).start()
        answer, _ = ask(HERE, server.getsockname()[1], 30)
    assert answer is Answer.CLOSED


@pytest.mark.slow
def test_a_program_with_another_protocol_is_not_a_launcher():
    with socket.create_server((HERE, 0)) as server:

        def answer() -> None:
            with suppress(OSError):  # the server is closed at the end
                while True:
                    connection = server.accept()[0]
                    connections.append(connection)
                    if connection.recv(1):
                        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        connections = []
        threading.Thread(target=answer, daemon=True).start()
        kind, found = ask(HERE, server.getsockname()[1], 2)
    assert kind is Answer.OTHER
    # The second message is possible if torch is still trying at the timeout.
    assert found in (
        "it does not speak torch's protocol",
        "it accepts connections, but does not answer",
    )


def test_no_program_listens():
    with socket.create_server((HERE, 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        ask(HERE, port, 1)
    assert listener(port) == ""


def test_the_name_of_a_program_that_listens():
    with socket.create_server((HERE, 0)) as server:
        assert f"(pid {os.getpid()})" in listener(server.getsockname()[1])
