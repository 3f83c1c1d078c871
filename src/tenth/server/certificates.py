"""Certificates for the network around this machine, made here: they keep what is sent from being read on the way.

The server's own is for one address, cannot sign others (so who gets hold of its key can be this server only), and is
made again before it ends: after 397 days, the most that Apple's platforms take (support.apple.com/102028). An authority
of this machine signs it. Whoever installs that authority's certificate on a device is asked no more, and gets what
browsers keep from sites that they do not trust: an app that opens offline. It may sign for private addresses and this
machine's names only (name constraints, RFC 5280 4.2.1.10), and for servers only.
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
    from cryptography.hazmat.primitives.asymmetric import ec

    Pair = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]
    Network = ipaddress.IPv4Network | ipaddress.IPv6Network

DAY = datetime.timedelta(days=1)
VALID, RENEWED = 397 * DAY, 30 * DAY  # of the server's
AUTHORITY_VALID, AUTHORITY_RENEWED = 3650 * DAY, 400 * DAY  # made again: to be installed again
PRIVATE = tuple(ipaddress.ip_network(one) for one in (
    "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10", "127.0.0.0/8",
    "fc00::/7", "fe80::/10", "::1/128"))


@dataclass(frozen=True)
class Certificate:
    """``file``: certificate and key (PEM). Fingerprints: SHA-256, as browsers show it. ``authority``: what signed it,
    as devices install it (DER)."""

    file: Path
    fingerprint: str
    authority: bytes
    authority_fingerprint: str


def certificate_for(address: str, folder: Path) -> Certificate:
    """The certificate of this address, made if there is none that is good for a while. Raises ResourceError."""
    from cryptography.hazmat.primitives.serialization import Encoding

    file, authority_file = folder / "lan.pem", folder / "lan-authority.pem"
    try:
        signer = _kept_authority(authority_file, address) or _make_authority(authority_file, address)
        found = _kept(file, address, signer[0]) or _make(file, address, signer)
    except OSError as error:
        raise ResourceError(f"{error.filename or folder}: the certificate cannot be kept: {error.strerror}",
                            "--plain does without, unencrypted") from error
    return Certificate(file, _fingerprint(found), signer[0].public_bytes(Encoding.DER), _fingerprint(signer[0]))


def own_names() -> list[str]:
    """What this machine is called in its network, beside its address."""
    host = socket.gethostname().lower()
    return [host, f"{host.partition('.')[0]}.local"] if host else []


def _fingerprint(certificate: x509.Certificate) -> str:
    from cryptography.hazmat.primitives.hashes import SHA256

    digest = certificate.fingerprint(SHA256()).hex().upper()
    return ":".join(digest[i : i + 2] for i in range(0, len(digest), 2))


def _kept(file: Path, address: str, authority: x509.Certificate) -> x509.Certificate | None:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature

    try:
        found = x509.load_pem_x509_certificate(file.read_bytes())
        addresses = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        is_ours = ipaddress.ip_address(address) in addresses.get_values_for_type(x509.IPAddress)
        found.verify_directly_issued_by(authority)
    except (FileNotFoundError, ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return None
    return found if is_ours and _lasts(found, RENEWED) else None


def _kept_authority(file: Path, address: str) -> Pair | None:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        text = file.read_bytes()
        found, key = x509.load_pem_x509_certificate(text), load_pem_private_key(text, None)
        may_sign = any(ipaddress.ip_address(address) in network for network in _permitted(found, x509.IPAddress))
    except (FileNotFoundError, ValueError, TypeError, x509.ExtensionNotFound):
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != found.public_key():
        return None
    return (found, key) if may_sign and _lasts(found, AUTHORITY_RENEWED) else None


def _lasts(found: x509.Certificate, at_least: datetime.timedelta) -> bool:
    return found.not_valid_after_utc > datetime.datetime.now(datetime.UTC) + at_least


def _permitted(authority: x509.Certificate, kind: type[x509.GeneralName]) -> list[Network | str]:
    from cryptography import x509

    names = authority.extensions.get_extension_for_class(x509.NameConstraints).value.permitted_subtrees or []
    return [name.value for name in names if isinstance(name, kind)]


def _make_authority(file: Path, address: str) -> Pair:
    from cryptography import x509

    where: list[Network] = list(PRIVATE)
    if not any(ipaddress.ip_address(address) in network for network in where):
        where.append(ipaddress.ip_network(address))
    permitted: list[x509.GeneralName] = [x509.IPAddress(one) for one in where]
    permitted += [x509.DNSName(one) for one in own_names() if one.isascii()]
    made = _signed(f"tenth on {socket.gethostname()[:40]}", None, AUTHORITY_VALID,
                   [(x509.BasicConstraints(ca=True, path_length=0), True),
                    (x509.NameConstraints(permitted, None), True)])
    _write(file, made)
    return made


def _make(file: Path, address: str, authority: Pair) -> x509.Certificate:
    from cryptography import x509

    may_be_called = _permitted(authority[0], x509.DNSName)
    known: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address(address))]
    known += [x509.DNSName(one) for one in own_names() if one in may_be_called]
    made = _signed("tenth on this network", authority, VALID,
                   [(x509.BasicConstraints(ca=False, path_length=None), True),
                    (x509.SubjectAlternativeName(known), False)])
    _write(file, made)
    return made[0]


def _signed(name: str, by: Pair | None, valid: datetime.timedelta,
            extensions: list[tuple[x509.ExtensionType, bool]]) -> Pair:
    """A new key and its certificate, signed by another's key or its own. ``extensions``: with whether critical."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer, signing = (by[0].subject, by[1]) if by else (subject, key)
    uses = dict.fromkeys(("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign",
                          "encipher_only", "decipher_only"), False)
    builder = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - DAY).not_valid_after(now - DAY + valid)
        .add_extension(x509.KeyUsage(digital_signature=by is not None, key_cert_sign=by is None, **uses), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), critical=False))
    for extension, is_critical in extensions:
        builder = builder.add_extension(extension, critical=is_critical)
    return builder.sign(signing, SHA256()), key


def _write(file: Path, made: Pair) -> None:
    """Keep certificate and key, for this user's eyes only."""
    from cryptography.hazmat.primitives import serialization

    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = file.with_name(f"{file.name}.{os.getpid()}")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as out:
        out.write(made[0].public_bytes(serialization.Encoding.PEM))
        out.write(made[1].private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                        serialization.NoEncryption()))
    part.replace(file)
