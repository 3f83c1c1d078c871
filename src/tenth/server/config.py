"""Every setting of the server once: default, unit, one sentence. The flags of ``tenth serve`` are made from it."""

from __future__ import annotations

import ipaddress
import os
import socket
from dataclasses import dataclass, field
from typing import Any

import psutil

from tenth.errors import RequestError

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


def _setting(default: Any, help: str, **how: Any) -> Any:
    return field(default=default, metadata={"help": help, **how})


@dataclass(frozen=True)
class ServerConfig:
    """How a server is set up. Raises RequestError for a bad value."""

    host: str = _setting("127.0.0.1", "Address to listen at; any but this machine's own needs a key.")
    port: int = _setting(8010, "Port to listen at; 0 takes a free one.", min=0, max=65535)
    lan: bool = _setting(False, "Also be there for phones in this network, who come in by a QR code.", names=("--lan",))
    lan_address: str | None = _setting(
        None, "With --lan: this machine's address there; default: that of its way out.", metavar="ADDRESS")
    plain: bool = _setting(False, "With --lan: do without the certificate that is made here, unencrypted.",
                           names=("--plain",))
    allow_host: list[str] | None = _setting(  # noqa: RUF009
        None, "Also serve requests whose Host header is this (NAME or NAME:PORT); may be repeated.",
        metavar="HOST")
    allow_origin: list[str] | None = _setting(  # noqa: RUF009
        None, "Let web pages of this origin use the server; may be repeated.", metavar="ORIGIN")
    require_key: bool = _setting(False, "Need a key on loopback too, even if none was made.", names=("--require-key",))
    tls_cert: str | None = _setting(None, "Serve HTTPS with this certificate chain (PEM).", metavar="FILE")
    tls_key: str | None = _setting(None, "The certificate's private key (PEM).", metavar="FILE")
    database: str | None = _setting(
        None, "Keep chats, accounts and keys in PostgreSQL (also TENTH_DATABASE); default: a file in the data folder.",
        metavar="URL")
    most_kept: int = _setting(100_000, "Responses, and chats, kept for one key or account; of batches a hundredth.",
                              min=1)
    waiting: int = _setting(64, "Requests that may wait for a model; one more is told to come again (429).", min=1,
                            max=4096)
    idle_unload: float = _setting(0.0, "Close a model after so many seconds without requests; 0 means never.", min=0.0,
                                  metavar="SECONDS")
    grace: float = _setting(30.0, "When told to stop, let answers at work finish for so many seconds.", min=0.0,
                            metavar="SECONDS")
    log_text: bool = _setting(False, "Also log what is asked and answered; else no log has any of it.",
                              names=("--log-text",))
    log_level: str = _setting("info", "How much is logged: debug, info, warning or error.")

    def __post_init__(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise RequestError("--tls-cert and --tls-key go together")
        for file in (self.tls_cert, self.tls_key):
            if file is not None and not os.access(file, os.R_OK):
                raise RequestError(f"{file}: cannot be read")
        if self.tls_cert is not None and self.tls_key is not None:
            _check_pair(self.tls_cert, self.tls_key)
        if self.lan and not self.is_loopback:
            raise RequestError("--lan and --host exclude each other",
                               "--lan listens on loopback, and in the network for whoever was paired")
        if (self.plain or self.lan_address) and not self.lan:
            raise RequestError("--plain and --lan-address belong to --lan")
        if self.lan_address and not _is_address(self.lan_address):
            raise RequestError(f"{self.lan_address!r} is no address", "--lan-address takes one like 192.168.1.5")
        if self.log_level not in ("debug", "info", "warning", "error"):
            raise RequestError(f"log level {self.log_level!r}, expected debug, info, warning or error")
        for origin in self.allow_origin or ():
            scheme, _, rest = origin.partition("://")
            if scheme not in ("http", "https") or not rest or "/" in rest or "*" in rest:
                raise RequestError(f"origin {origin!r}, expected one like http://localhost:3000")

    @property
    def scheme(self) -> str:
        """http or https."""
        return "https" if self.tls_cert else "http"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def hosts(self, port: int) -> frozenset[str]:
        """Values of the Host header that mean this server, once the port is known."""
        names = set(LOOPBACK_NAMES)
        if not self.is_loopback:
            names |= {_literal(self.host), socket.gethostname().lower()}
            names |= _own_addresses() if ipaddress.ip_address(self.host).is_unspecified else set()
        found = {f"{name}:{port}" for name in names}
        usual = 443 if self.tls_cert else 80
        found |= names if port == usual else set()
        given = {name.lower() for name in self.allow_host or ()}
        return frozenset(found | given | {f"{name}:{port}" for name in given if ":" not in name})


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _own_addresses() -> set[str]:
    families = (socket.AF_INET, socket.AF_INET6)
    return {_literal(address.address.partition("%")[0]) for addresses in psutil.net_if_addrs().values()
            for address in addresses if address.family in families}


def _literal(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _check_pair(cert: str, key: str) -> None:
    """Refuse files that are no certificate and its key now, in words: OpenSSL has only numbers for it."""
    import ssl  # here, for it takes long to load and few need it

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password=lambda: "")
    except OSError:  # an SSLError is one
        raise RequestError(f"{cert} and {key} are no certificate and its key",
                           "both as PEM, the key without a passphrase") from None
