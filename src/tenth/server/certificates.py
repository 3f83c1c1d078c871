"""A certificate for the network around this machine, made here: it keeps what is sent from being read on the way.

Nobody vouches for it, so a browser asks once; whoever wants to be sure compares the fingerprint. It is for one address,
cannot sign others (so who gets hold of the key can be this server only), and is made again before it ends: after 397
days, the most that Apple's platforms take (support.apple.com/102028).
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tenth.errors import ResourceError

if TYPE_CHECKING:
    from cryptography import x509

VALID, RENEWED = datetime.timedelta(days=397), datetime.timedelta(days=30)


@dataclass(frozen=True)
class Certificate:
    """``file``: certificate and key (PEM). ``fingerprint``: SHA-256, as browsers show it."""

    file: Path
    fingerprint: str


def certificate_for(address: str, folder: Path) -> Certificate:
    """The certificate of this address, made if there is none that is good for a while. Raises ResourceError."""
    from cryptography.hazmat.primitives.hashes import SHA256

    file = folder / "lan.pem"
    try:
        found = _kept(file, address) or _make(file, address)
    except OSError as error:
        raise ResourceError(f"{file}: the certificate cannot be kept: {error.strerror}",
                            "--plain does without, unencrypted") from error
    digest = found.fingerprint(SHA256()).hex().upper()
    return Certificate(file, ":".join(digest[i : i + 2] for i in range(0, len(digest), 2)))


def own_names() -> list[str]:
    """What this machine is called in its network, beside its address."""
    host = socket.gethostname().lower()
    return [host, f"{host.partition('.')[0]}.local"] if host else []


def _kept(file: Path, address: str) -> x509.Certificate | None:
    from cryptography import x509

    try:
        found = x509.load_pem_x509_certificate(file.read_bytes())
        addresses = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        is_ours = ipaddress.ip_address(address) in addresses.get_values_for_type(x509.IPAddress)
    except (FileNotFoundError, ValueError, x509.ExtensionNotFound):
        return None
    return found if is_ours and found.not_valid_after_utc > datetime.datetime.now(datetime.UTC) + RENEWED else None


def _make(file: Path, address: str) -> x509.Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tenth on this network")])
    known: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address(address))]
    known += [x509.DNSName(one) for one in own_names() if one.isascii()]
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + VALID)
        .add_extension(x509.SubjectAlternativeName(known), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, SHA256()))
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = file.with_name(f"{file.name}.{os.getpid()}")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as out:
        out.write(made.public_bytes(serialization.Encoding.PEM))
        out.write(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                    serialization.NoEncryption()))
    part.replace(file)
    return made
