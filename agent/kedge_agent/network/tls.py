"""One TLS context for every connection of the updater: each of its own takes 3 MB resident."""

from __future__ import annotations

import ssl
from functools import lru_cache
from pathlib import Path


@lru_cache(maxsize=1)
def context() -> ssl.SSLContext:
    """Returns a context that trusts what the system trusts.

    OpenSSL looks authorities up in the system's folder one by one when it needs them; reading
    certifi's whole bundle, as httpx does by itself, takes 2 MB. It is read only where the system
    has nothing. A fleet's own authority is added to the system's, or named in ``SSL_CERT_FILE``.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_default_verify_paths()
    paths = ssl.get_default_verify_paths()
    folder = Path(paths.capath) if paths.capath else None
    has_folder = folder is not None and any(folder.glob("*.[0-9]"))
    if not has_folder and not made.get_ca_certs():
        import certifi

        made.load_verify_locations(certifi.where())
    return made
