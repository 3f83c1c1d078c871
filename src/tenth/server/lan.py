"""The second door, for the network around this machine (``tenth serve --lan``): on its address, with a login always.

The first door stays on loopback as it was. A phone comes in by a link that is shown as a QR code: its secret stands
behind the "#", so that no browser sends it in an address, and counts once.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from dataclasses import dataclass

import psutil

from tenth.errors import Cause, ResourceError
from tenth.library import library_folder
from tenth.server.certificates import Certificate, certificate_for, own_names
from tenth.server.config import ServerConfig
from tenth.server.failures import Refused
from tenth.server.keys import Caller
from tenth.server.sessions import PAIRING_S, Sessions

SHARED = ipaddress.ip_network("100.64.0.0/10")  # what carriers and private overlays use (RFC 6598)
AUTHORITY_PATH = "/tenth.crt"  # short, because somebody may have to type it
AWAY = "192.0.2.1"  # nobody's (RFC 5737): asked only which of our addresses would lead there; nothing is sent


@dataclass(frozen=True)
class Lan:
    """Where the door is. ``certificate``: None where it is not encrypted."""

    sock: socket.socket
    host: str
    port: int
    certificate: Certificate | None

    @property
    def scheme(self) -> str:
        """http or https."""
        return "https" if self.certificate else "http"

    @property
    def url(self) -> str:
        """Its address."""
        return f"{self.scheme}://{_literal(self.host)}:{self.port}"

    @property
    def hosts(self) -> frozenset[str]:
        """Values of the Host header that mean it."""
        return frozenset(f"{name}:{self.port}" for name in (_literal(self.host), *own_names()))


@dataclass(frozen=True)
class Link:
    """A link that pairs a browser, once. ``authority``: the SHA-256 of what a device may install, at AUTHORITY_PATH."""

    url: str
    expires_at: float
    is_tls: bool
    authority: str | None


def open_lan(config: ServerConfig, port: int) -> Lan:
    """Listen in the network, at the same port if it is free there. Raises ResourceError."""
    host = config.lan_address or own_address()
    check_private(host)
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
        except OSError:
            sock.bind((host, 0))
        certificate = None if config.plain else certificate_for(host, library_folder() / "server")
    except (OSError, ResourceError) as error:
        sock.close()
        if isinstance(error, ResourceError):
            raise
        raise ResourceError(f"cannot listen at {host}: {error.strerror}", "--lan-address takes another") from None
    return Lan(sock, host, sock.getsockname()[1], certificate)


def check_private(host: str) -> None:
    """Raises ResourceError for an address that the whole internet may reach."""
    address = ipaddress.ip_address(host)
    if not (address.is_private or address.is_link_local or address in SHARED) or address.is_unspecified:
        raise ResourceError(f"{host} is not the address of a private network",
                            "--lan-address gives one; for the internet use --host with keys and a certificate")


def own_address() -> str:
    """This machine's address in its network. Raises ResourceError where it is in none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((AWAY, 9))
            found = str(probe.getsockname()[0])
            if not ipaddress.ip_address(found).is_loopback:
                return found
        except OSError:  # no way out: a network of its own
            pass
    for name, addresses in sorted(psutil.net_if_addrs().items()):
        for one in addresses:
            if one.family == socket.AF_INET and psutil.net_if_stats()[name].isup and not ipaddress.ip_address(
                    one.address).is_loopback:
                return str(one.address)
    raise ResourceError("this machine is in no network", "connect it first, or --lan-address gives the address")


def link_for(sessions: Sessions, caller: Caller | None, base: str, certificate: Certificate | None = None) -> Link:
    """A link to a session of who asks; None: of who owns this machine. ``base``: the address it leads to."""
    expires_at = time.time() + PAIRING_S
    secret = sessions.new_pairing(sessions.machines_owner() if caller is None else caller)
    return Link(f"{base}/#pair={secret}", expires_at, base.startswith("https"),
                certificate.authority_fingerprint if certificate else None)


def link_of_page(sessions: Sessions, caller: Caller, lan: Lan | None, config: ServerConfig, host: str) -> Link:
    """The same for a page that asks. Refuses (409) where only this machine could follow the link."""
    if lan is not None:
        return link_for(sessions, caller, lan.url, lan.certificate)
    if config.is_loopback:
        raise Refused(409, "this server is for this machine only", "tenth serve --lan is also for a phone",
                      cause=Cause("phone-no-door"))
    return link_for(sessions, caller, f"{config.scheme}://{host}")


def _literal(address: str) -> str:
    return f"[{address}]" if ":" in address else address



