"""Get the pinned Caffe source (BVLC/caffe, commit 99bd997) and verify every file of it.

Three places are tried: what the environment variable CAFFE_SOURCE names (a folder or a tarball), else the source
package that Debian 11 made of this commit, from the mirror that this system's own apt is set up with, else the
upstream repository. All three give one tree: the files listed in ``caffe-99bd997.sha256``, each with its SHA-256.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

COMMIT = "99bd99795dcdf0b1d3086a8d67ab1782a8a08383"
UPSTREAM = "https://github.com/BVLC/caffe"
MANIFEST = Path(__file__).resolve().parents[1] / "caffe-99bd997.sha256"
DEBIAN_PACKAGE = "caffe=1.0.0+git20180821.99bd997-8"
DEBIAN_TARBALL_SHA256 = "e0eb3f06794f7402c77b7dec8e8480273ee1a1bb192e9122b621a69d4147ad0c"
APT_SOURCES = (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list"))


class SourceError(Exception):
    """The source cannot be had, or is not the pinned one; the message is one line."""


def sha256(path: Path) -> str:
    """SHA-256 of a file in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_manifest(path: Path = MANIFEST) -> dict[str, str]:
    """Relative path -> SHA-256, from a file in sha256sum's format."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return {name: digest for digest, name in (line.split("  ", 1) for line in lines)}


def verify(tree: Path, manifest: dict[str, str]) -> None:
    """Raise SourceError that names the first files of ``tree`` that are missing or differ from the manifest."""
    missing = [name for name in manifest if not (tree / name).is_file()]
    changed = [name for name in manifest if name not in missing and sha256(tree / name) != manifest[name]]
    for what, names in (("missing", missing), ("changed", changed)):
        if names:
            shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            raise SourceError(f"not Caffe's source at commit {COMMIT[:7]}: {len(names)} file(s) {what}: {shown}")


def unpack(source: Path, target: Path, manifest: dict[str, str]) -> None:
    """Copy exactly the manifest's files out of a folder or tarball into ``target``, and verify them there."""
    with tempfile.TemporaryDirectory() as scratch:
        root = source
        if source.is_file():
            root = Path(scratch)
            command = ["tar", "--extract", f"--file={source}", f"--directory={root}", "--no-same-owner"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SourceError(f"{source}: cannot be unpacked: {done.stderr.strip().splitlines()[0]}")
        elif not source.is_dir():
            raise SourceError(f"{source}: no such folder or tarball")
        if not (root / "src/caffe").is_dir():  # an archive of the repository has one folder around everything
            inner = [folder for folder in root.iterdir() if (folder / "src/caffe").is_dir()]
            root = inner[0] if len(inner) == 1 else root
        verify(root, manifest)
        for name in manifest:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, target / name)
    verify(target, manifest)


def system_mirror(sources: tuple[Path, ...] = APT_SOURCES) -> tuple[str, str]:
    """Address of the Debian mirror in the system's own apt set-up, and the keyring that it is checked with.

    Reads both of apt's formats. Raises SourceError where neither file names a mirror.
    """
    keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
    for path in (path for path in sources if path.is_file()):
        for line in path.read_text(encoding="utf-8").splitlines():
            words = line.split()
            if words[:1] == ["URIs:"]:
                return words[1], keyring
            if words[:1] == ["deb"]:
                return next(word for word in words[1:] if "://" in word), keyring
    raise SourceError("the system's apt names no Debian mirror")


def fetch_from_debian(downloads: Path) -> Path:
    """The source package's tarball (8.5 MB), fetched by apt with a set-up of its own: the system's is not touched."""
    mirror, keyring = system_mirror()
    # apt gives its downloads to the user _apt, who must be able to enter the folder
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        folder.chmod(0o755)
        (folder / "lists/partial").mkdir(parents=True)
        stanza = f"Types: deb-src\nURIs: {mirror}\nSuites: bullseye\nComponents: main\nSigned-By: {keyring}\n"
        (folder / "caffe.sources").write_text(stanza, encoding="utf-8")
        options = [
            "-o", f"Dir::Etc::sourcelist={folder}/caffe.sources",
            "-o", "Dir::Etc::sourceparts=/dev/null",
            "-o", f"Dir::State::lists={folder}/lists",
            "-o", f"Dir::Cache::srcpkgcache={folder}/srcpkgcache.bin",
            "-o", f"Dir::Cache::pkgcache={folder}/pkgcache.bin",
        ]  # fmt: skip
        subprocess.run(["apt-get", *options, "update"], cwd=folder, check=True)
        subprocess.run(["apt-get", *options, "source", "--download-only", DEBIAN_PACKAGE], cwd=folder, check=True)
        tarballs = list(folder.glob("*.orig.tar.*"))
        if len(tarballs) != 1 or sha256(tarballs[0]) != DEBIAN_TARBALL_SHA256:
            raise SourceError(f"the source package from {mirror} is not the pinned one")
        downloads.mkdir(parents=True, exist_ok=True)
        target = downloads / f"caffe-{COMMIT[:7]}.tar.gz"
        # moved to its name when it is whole: a killed copy is never taken for the tarball
        shutil.copyfile(tarballs[0], target.with_suffix(".part"))
        return target.with_suffix(".part").replace(target)


def fetch_from_upstream(folder: Path) -> Path:
    """The upstream repository at the pinned commit, without its history, checked out in ``folder``."""
    environment = os.environ | {"GIT_TERMINAL_PROMPT": "0"}
    for arguments in (
        ["init", "--quiet", str(folder)],
        ["-C", str(folder), "fetch", "--quiet", "--depth=1", UPSTREAM, COMMIT],
        # the repository's bytes, whatever a user's configuration says of line ends
        ["-C", str(folder), "-c", "core.autocrlf=false", "checkout", "--quiet", "FETCH_HEAD"],
    ):
        subprocess.run(["git", *arguments], env=environment, check=True)
    return folder


def fetch(target: Path, downloads: Path, caffe_source: str | None = None) -> None:
    """Put the verified tree into the folder ``target``; tarballs that were fetched stay in ``downloads``.

    ``caffe_source`` (a folder or a tarball) is taken instead of the network where it is given. Raises SourceError.
    """
    manifest = read_manifest()
    if caffe_source:
        print(f"Caffe's source: {caffe_source} (CAFFE_SOURCE)", flush=True)
        return unpack(Path(caffe_source).expanduser(), target, manifest)
    cached = downloads / f"caffe-{COMMIT[:7]}.tar.gz"
    if cached.is_file() and sha256(cached) == DEBIAN_TARBALL_SHA256:
        print(f"Caffe's source: {cached}", flush=True)
        return unpack(cached, target, manifest)
    try:
        print("Caffe's source: Debian 11's source package from the system's mirror", flush=True)
        return unpack(fetch_from_debian(downloads), target, manifest)
    except (SourceError, OSError, subprocess.CalledProcessError) as error:
        print(f"that failed: {error}\nCaffe's source: {UPSTREAM} at {COMMIT}", flush=True)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            return unpack(fetch_from_upstream(Path(scratch)), target, manifest)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SourceError(
            f"Caffe's source cannot be fetched ({error}); get {UPSTREAM} at commit {COMMIT} by hand and "
            "name the folder or tarball in CAFFE_SOURCE"
        ) from error
