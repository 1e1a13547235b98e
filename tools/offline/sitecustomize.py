"""Refuse every connection that leaves this machine.

Python loads a file of this name at its start when the folder is on PYTHONPATH; the test run puts
it there, so that kernels and worker processes are guarded like the tests themselves.
"""

import socket

_connect = socket.socket.connect
_connect_ex = socket.socket.connect_ex
_getaddrinfo = socket.getaddrinfo


def _is_local(host) -> bool:
    if isinstance(host, bytes):
        host = host.decode()
    own = (None, "", "localhost", "::1", "0.0.0.0", "::", socket.gethostname())
    return host in own or host.startswith("127.")


def _refuse_outside(self, address) -> None:
    if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_local(address[0]):
        raise ConnectionRefusedError(f"tests run offline: no connection to {address[0]}")


def _guarded_connect(self, address):
    _refuse_outside(self, address)
    return _connect(self, address)


def _guarded_connect_ex(self, address):
    _refuse_outside(self, address)
    return _connect_ex(self, address)


def _guarded_getaddrinfo(host, *args, **kwargs):
    if not _is_local(host):
        raise socket.gaierror(f"tests run offline: no look-up of {host}")
    return _getaddrinfo(host, *args, **kwargs)


socket.socket.connect = _guarded_connect
socket.socket.connect_ex = _guarded_connect_ex
socket.getaddrinfo = _guarded_getaddrinfo
