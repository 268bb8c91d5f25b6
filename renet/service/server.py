"""Listening, answering until a signal comes, and then answering what has been asked."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket

import uvicorn

from renet.common.errors import UserError
from renet.service.app import Service, make_app
from renet.service.metrics import Metrics
from renet.service.network import Network

SECONDS_OF_AN_IDLE_CONNECTION = 30
WAITING_CONNECTIONS = 128


def serve(service: Service, host: str, port: int, verbose: bool = False) -> None:
    """Serve until SIGINT or SIGTERM; images that wait then are predicted still, a second SIGINT gives them up.

    Args:
        service: what is served.
        host: name or address to listen at.
        port: likewise; 0 takes a free one.
        verbose: tell of each request.

    Raises:
        UserError: the network cannot be loaded, or nobody can listen there.
    """
    metrics = Metrics()
    with _listen(host, port) as listening:
        limits = service.limits
        network = Network(service.setup, metrics, service.queue, limits.seconds, service.together, limits.pixels)
        try:
            config = uvicorn.Config(
                make_app(service, network, metrics),
                log_level="info" if verbose else "warning",
                lifespan="off",
                server_header=False,
                ws="none",
                timeout_keep_alive=SECONDS_OF_AN_IDLE_CONNECTION,
            )
            server = uvicorn.Server(config)
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, server.handle_exit)  # before it runs, and when it sends them once more at its end
            print(f"{service.name} is served at {_address(listening)} (Ctrl-C ends it)", flush=True)
            if not _is_loopback(listening):
                print("whoever reaches it can use it: TLS and authentication are left to a reverse proxy", flush=True)
            server.run([listening])
        finally:
            network.close()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=WAITING_CONNECTIONS)
    except socket.gaierror as error:
        raise UserError(f"cannot listen at {host}: {error.strerror}") from None
    except OSError as error:
        raise UserError(f"cannot listen at {host}, port {port}: {os.strerror(error.errno or 0)}") from None


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _is_loopback(listening: socket.socket) -> bool:
    return ipaddress.ip_address(listening.getsockname()[0]).is_loopback
