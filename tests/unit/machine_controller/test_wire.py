"""What a connection with vCenter leaves behind when the other side goes at a bad moment."""

from __future__ import annotations

import gc
import select
import socket
import struct

import pytest

from services.machine_controller.vsphere import calls, wire
from services.machine_controller.vsphere.credentials import Trust
from services.machine_controller.vsphere.values import Server

RESET = struct.pack("ii", 1, 0)


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def server(listener):
    return Server("127.0.0.1", listener.getsockname()[1])


class _ResetBeforeTheHandshake(calls.Call):
    """A call whose peer resets the connection as soon as it is there."""

    def __init__(self, listener):
        super().__init__(10.0)
        self._listener = listener

    def use(self, sock):
        super().use(sock)
        peer, _ = self._listener.accept()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        peer.close()
        poll = select.poll()
        poll.register(sock, 0)
        assert poll.poll(10_000)


def test_a_peer_that_resets_before_the_handshake_leaves_no_socket_open(listener):
    trust = Trust(insecure=True)
    connection = wire.Connection(server(listener), trust, trust.context())
    with calls.carried_out(_ResetBeforeTheHandshake(listener)), pytest.raises(ConnectionResetError):
        connection.connect()
    gc.collect()  # a socket left open is a ResourceWarning, and that an error
