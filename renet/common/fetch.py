"""Download of a file from its home, once."""

from __future__ import annotations

import http.client
import ssl
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from renet.common.errors import UserError, naming
from renet.common.files import partial_file
from renet.common.progress import progress

SECONDS_WITHOUT_DATA = 30
_BLOCK = 1 << 16


def fetch(urls: Sequence[str], file: Path, by_hand: str) -> Path:
    """Download a file, whole or not at all; what is there already is kept. Several processes may do so at once.

    Args:
        urls: where from; each is tried where those before it fail.
        file: where to.
        by_hand: the end of the message of a failure: how to get it otherwise and how to pass it.

    Raises:
        UserError: the download failed; names the last address, the reason and `by_hand`.
    """
    if file.exists():
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    reason: object = None
    for url in urls:
        try:
            with partial_file(file) as (partial, stream):
                _download(url, stream, file)
                stream.flush()
                partial.rename(file)
                return file
        except (urllib.error.URLError, http.client.HTTPException, ssl.SSLError, TimeoutError, ConnectionError) as error:
            reason = getattr(error, "reason", None) or error
    raise UserError(f"{urls[-1]}: the download failed ({reason}); {by_hand}")


def _download(url: str, stream: BinaryIO, file: Path) -> None:
    with urllib.request.urlopen(url, timeout=SECONDS_WITHOUT_DATA) as response:
        length = int(response.headers.get("Content-Length") or 0)
        received = 0
        with progress(total=length or None, description=f"fetching {file.name}", unit="B") as bar:
            while block := response.read(_BLOCK):
                with naming(file):
                    stream.write(block)
                received += len(block)
                bar.update(len(block))
    if length and received != length:
        raise http.client.IncompleteRead(b"", length - received)
