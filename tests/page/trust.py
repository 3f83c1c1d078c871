"""Trusts a certificate's authority in a home folder, as a person does who installs it: python trust.py HOME FILE.

Chromium on Linux looks for authorities in NSS's database. NSS comes with it as a library, its tools do not.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path


def trust(home: Path, certificate: bytes) -> None:
    """Add an authority (DER) for servers. One call in a process: NSS keeps state."""
    folder = home / ".pki" / "nssdb"
    folder.mkdir(parents=True)
    nss, smime = ctypes.CDLL("libnss3.so"), ctypes.CDLL("libsmime3.so")
    for function in (nss.PK11_GetInternalKeySlot, smime.CERT_DecodeCertFromPackage, nss.CERT_GetDefaultCertDB):
        function.restype = ctypes.c_void_p
    assert nss.NSS_InitReadWrite(f"sql:{folder}".encode()) == 0
    slot = ctypes.c_void_p(nss.PK11_GetInternalKeySlot())
    assert nss.PK11_InitPin(slot, None, b"") == 0
    made = ctypes.c_void_p(smime.CERT_DecodeCertFromPackage(certificate, len(certificate)))
    assert nss.PK11_ImportCert(slot, made, 0, b"tenth", 0) == 0
    flags = (ctypes.c_uint * 3)()
    assert nss.CERT_DecodeTrustString(flags, b"C,,") == 0
    assert nss.CERT_ChangeCertTrust(ctypes.c_void_p(nss.CERT_GetDefaultCertDB()), made, flags) == 0
    nss.CERT_DestroyCertificate(made)
    nss.PK11_FreeSlot(slot)
    assert nss.NSS_Shutdown() == 0


if __name__ == "__main__":
    trust(Path(sys.argv[1]), Path(sys.argv[2]).read_bytes())
