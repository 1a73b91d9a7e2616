"""The options of jobs on several machines: mistakes, and the arguments of torch's launcher."""

import os
import socket
import threading
import time
from dataclasses import replace

import pytest
from torch.distributed import TCPStore

from mmpt.cli.nodes import ONE_NODE, Nodes
from mmpt.errors import LaunchError

HERE = "127.0.0.1"


def parse(nnodes="1", rank=None, endpoint="", restarts=0, timeout_s=300):
    return Nodes.parse(nnodes, rank, endpoint, "job", restarts, timeout_s)


def test_numbers_of_nodes_and_the_endpoint():
    assert parse() == replace(ONE_NODE, run_id="job")
    two = parse("2", 1, "host:1234", 3, 9)
    assert two == Nodes(2, 2, 1, "host", 1234, "job", 3, 9)
    elastic = parse("1:4", None, "host")
    assert (elastic.smallest, elastic.largest, elastic.port) == (1, 4, 29400)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"nnodes": "0"},
            "--nnodes must be a number of machines, such as 2, or the smallest and",
        ),
        ({"nnodes": "4:1"}, "but is 4:1."),
        ({"nnodes": "two"}, "but is two."),
        (
            {"nnodes": "2", "rank": 2},
            "--node-rank must be a number from 0 to 1 with --nnodes 2",
        ),
        ({"rank": -1}, "but is -1."),
        (
            {"nnodes": "2"},
            "--nnodes 2 needs --rdzv-endpoint HOST:PORT, .* but it is not given.",
        ),
        ({"nnodes": "2", "endpoint": "a:b"}, "but it is a:b."),
        ({"nnodes": "2", "endpoint": "a:99999"}, "but it is a:99999."),
        ({"nnodes": "2", "endpoint": ":29400"}, "but it is :29400."),
        ({"restarts": -1}, "--max-restarts must be at least 0, but is -1."),
        ({"timeout_s": 0}, "--rdzv-timeout must be at least 1, but is 0."),
    ],
)
def test_mistakes(options, message):
    with pytest.raises(LaunchError, match=message):
        parse(**options)


def test_node_0_has_rank_0_or_is_the_machine_of_the_endpoint():
    assert ONE_NODE.is_node_0
    for rank, host, is_node_0 in (
        # This machine does not have the address.
        (0, "elsewhere.invalid", True),
        (1, HERE, False),
        (None, HERE, True),
        (None, "elsewhere.invalid", False),
    ):
        assert parse("2", rank, host).is_node_0 == is_node_0


def test_the_ranks_are_in_the_order_of_the_node_numbers():
    """The launchers sort themselves by their addresses."""
    host = "zeta.example.org"
    addresses = [
        parse("12", rank, host).launch_settings()["local_addr"]
        for rank in (0, 1, 2, 10, 11)
    ]
    assert addresses == sorted(addresses)
    assert addresses[0] == host


@pytest.mark.parametrize(("timeout_s", "last_call_s"), [(1, 1), (40, 10), (300, 30)])
def test_the_wait_for_optional_nodes_is_shorter_than_for_required_ones(
    timeout_s, last_call_s
):
    settings = parse("1:2", 0, HERE, timeout_s=timeout_s).launch_settings()
    assert settings["rdzv_configs"]["join_timeout"] == timeout_s
    assert settings["rdzv_configs"]["last_call_timeout"] == last_call_s


def store(port: int) -> TCPStore:
    """Returns a store like the one that the launcher of node 0 opens."""
    return TCPStore(HERE, port, is_master=True, wait_for_workers=False)


def refused(nodes: Nodes, error: str = "") -> str:
    """Returns the message when torch raises the error of this name."""
    from torch.distributed.elastic import rendezvous

    with pytest.raises(LaunchError) as caught, nodes.explain_errors():
        raise getattr(rendezvous, error)
    return str(caught.value)


@pytest.mark.slow
def test_a_host_that_does_not_answer_is_reported_with_the_reason():
    with socket.create_server((HERE, 0)) as free:
        port = free.getsockname()[1]
    message = refused(parse("2", 1, f"{HERE}:{port}", timeout_s=1))
    assert message.startswith(
        f"--rdzv-endpoint {HERE}:{port}: node 0 did not answer within 1 s"
    )
    assert "Connection refused" in message
    unknown = refused(parse("2", 1, "elsewhere.invalid", timeout_s=1))
    assert unknown.startswith(
        "--rdzv-endpoint elsewhere.invalid:29400: node 0 did not answer"
    )


@pytest.mark.slow
def test_a_node_may_start_before_node_0():
    with socket.create_server((HERE, 0)) as free:
        port = free.getsockname()[1]
    opened = []
    timer = threading.Timer(1.0, lambda: opened.append(store(port)))
    timer.start()
    with parse("2", 1, f"{HERE}:{port}", timeout_s=60).explain_errors():
        assert opened


@pytest.mark.slow
@pytest.mark.parametrize(
    ("greeting", "found"),
    [
        (b"", "it accepts connections, but does not answer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "it sends 'SSH-2.0-OpenSSH_9.2'"),
    ],
)
def test_another_program_at_the_endpoint_is_reported(greeting, found):
    """torch would wait for an answer forever."""
    with socket.create_server((HERE, 0)) as server:

        def accept() -> None:
            while True:
                accepted.append(server.accept()[0])
                accepted[-1].sendall(greeting)

        accepted = []
        threading.Thread(target=accept, daemon=True).start()
        port = server.getsockname()[1]
        begin = time.monotonic()
        message = refused(parse("2", 1, f"{HERE}:{port}", timeout_s=2))
    assert time.monotonic() - begin < 20
    assert message.startswith(f"--rdzv-endpoint {HERE}:{port}: another program")
    assert f"(pid {os.getpid()}); {found}. Choose a free port" in message


def test_errors_of_torch_are_explained():
    node_0 = parse("2", 0, HERE)
    assert "cannot listen there" in refused(node_0, "RendezvousConnectionError")
    late = refused(node_0, "RendezvousTimeoutError")
    assert "fewer than 2 nodes joined within 300 s" in late
    assert "has ended on the other nodes" in refused(node_0, "RendezvousClosedError")


def test_the_loss_of_node_0_is_not_a_user_error(capsys):
    from torch.distributed.elastic.rendezvous import RendezvousConnectionError

    node_0 = store(0)
    node_1 = parse("2", 1, f"{HERE}:{node_0.port}")
    with pytest.raises(SystemExit, match="1"), node_1.explain_errors():
        raise RendezvousConnectionError
    assert "the connection to node 0 is lost" in capsys.readouterr().err
