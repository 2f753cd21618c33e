"""What a public address may not lead to: this machine and private networks.

A server that is asked for a file can answer with a redirect to any address, and what answers there (a cloud's metadata,
a database, a router) takes the request for one from inside. So only a host that a recipe names is asked inside.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Whether an IP address is one of the open internet, also where it wraps one of version 4."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        wrapped = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in _NAT64 or (int(ip) >> 32 == 0 and int(ip) > 1):  # `::127.0.0.1` as well
            wrapped = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if wrapped is not None:
            ip = wrapped
    return ip.is_global and not ip.is_multicast


def addresses(host: str) -> list[str]:
    """The IP addresses of a host, in any spelling that connects (`0x7f.1`, a name); none where it has none."""
    try:
        return [str(found[4][0]) for found in socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError):
        return []


def is_inside(host: str) -> bool:
    """Whether any address of a host isn't public; False where it has none that is known here."""
    return not all(map(is_public, addresses(host)))


class _Told(HTTPConnection):
    """A connection that knows whom it reached."""

    peer = ""

    def _new_conn(self) -> socket.socket:
        sock = super()._new_conn()
        self.peer = str(sock.getpeername()[0])
        return sock


class _Outside(_Told):
    """A connection to public addresses alone, whatever a name stands for when it is asked again."""

    def _new_conn(self) -> socket.socket:
        name = self._dns_host
        public = [address for address in addresses(name) if is_public(address)]
        self._dns_host = next(iter(public), "0.0.0.0.invalid")
        try:
            return super()._new_conn()
        finally:
            self._dns_host = name


class _ToldTLS(_Told, HTTPSConnection):
    pass


class _OutsideTLS(_Outside, HTTPSConnection):
    pass


def _pools(plain: type[HTTPConnection], tls: type[HTTPSConnection]) -> dict[str, Any]:
    class Plain(urllib3.HTTPConnectionPool):
        ConnectionCls = plain

    class TLS(urllib3.HTTPSConnectionPool):
        ConnectionCls = tls

    return {"http": Plain, "https": TLS}


POOLS = {True: _pools(_Told, _ToldTLS), False: _pools(_Outside, _OutsideTLS)}  # by whether inside is allowed


def peer(response: urllib3.BaseHTTPResponse) -> str:
    """The IP address that a response came from, or that of a proxy; empty where it isn't known any more."""
    return str(getattr(response.connection, "peer", "") or "")
