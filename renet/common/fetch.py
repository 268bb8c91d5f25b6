"""Download of a file from its home, once."""

from __future__ import annotations

import http.client
import ssl
import urllib.error
import urllib.request
from pathlib import Path

from renet.common.errors import UserError, naming
from renet.common.progress import progress

SECONDS_WITHOUT_DATA = 30
_BLOCK = 1 << 16


def fetch(url: str, file: Path, by_hand: str) -> Path:
    """Download `url` to `file`, whole or not at all; what is there already is kept.

    Args:
        url: where from.
        file: where to.
        by_hand: the end of the message of a failure: how to get it otherwise and how to pass it.

    Raises:
        UserError: the download failed; names the address, the reason and `by_hand`.
    """
    if file.exists():
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.partial")
    try:
        with urllib.request.urlopen(url, timeout=SECONDS_WITHOUT_DATA) as response, open(partial, "wb") as stream:
            length = int(response.headers.get("Content-Length") or 0)
            received = 0
            with progress(total=length or None, description=f"fetching {file.name}", unit="B") as bar:
                while block := response.read(_BLOCK):
                    with naming(partial):
                        stream.write(block)
                    received += len(block)
                    bar.update(len(block))
        if length and received != length:
            raise http.client.IncompleteRead(b"", length - received)
    except (urllib.error.URLError, http.client.HTTPException, ssl.SSLError, TimeoutError, ConnectionError) as error:
        partial.unlink(missing_ok=True)
        reason = getattr(error, "reason", None) or error
        raise UserError(f"{url}: the download failed ({reason}); {by_hand}") from None
    partial.rename(file)
    return file
