"""List of all parts of what is packed, with versions: a software bill of materials (SBOM) in CycloneDX's form."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement

from renet.common.files import write_atomically
from renet.common.repository import ROOT, version
from renet.packaging.libraries import NAME

SBOM = "sbom.cdx.json"
REQUIREMENTS = "requirements.txt"
CAFFE_COMMIT = "99bd99795dcdf0b1d3086a8d67ab1782a8a08383"  # as caffe_layers/scripts/fetch_source.py has it


def write_sbom(folder: Path, packages: Iterable[str], wheels: Iterable[str]) -> None:
    """Write the list into what is packed: Caffe, the libraries, and the Python packages that its set-up installs.

    The same parts give the same bytes.

    Args:
        folder: of what is packed.
        packages: Debian's packages that libraries in it are from.
        wheels: PyPI's, as NAME-VERSION.
    """
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6
    from packageurl import PackageURL

    parts = [PackageURL("github", "BVLC", "caffe", CAFFE_COMMIT)]
    parts += [PackageURL("deb", "debian", name, number) for name, number in sorted(_debian_versions(packages).items())]
    parts += [PackageURL("pypi", None, *wheel.rsplit("-", 1)) for wheel in sorted(set(wheels))]
    parts += [PackageURL("pypi", None, name.lower(), number) for name, number in python_packages()]
    whole = Component(name=NAME, version=version(), type=ComponentType.APPLICATION, bom_ref=NAME)
    content = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_URL, "\n".join(map(str, parts))))
    content.metadata.component = whole
    content.metadata.timestamp = None
    for part in dict.fromkeys(parts):
        component = Component(
            name=part.name, version=part.version, type=ComponentType.LIBRARY, purl=part, bom_ref=str(part)
        )
        content.components.add(component)
        content.register_dependency(whole, [component])
    write_atomically(folder / SBOM, (JsonV1Dot6(content).output_as_string(indent=1) + "\n").encode())


def python_packages() -> list[tuple[str, str]]:
    """List names and versions of the Python packages of requirements.txt that this Python takes."""
    lines = (ROOT / REQUIREMENTS).read_text(encoding="utf-8").splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return [
        (one.name, str(one.specifier).removeprefix("=="))
        for one in found
        if one.marker is None or one.marker.evaluate()
    ]


def _debian_versions(packages: Iterable[str]) -> dict[str, str]:
    names = sorted(set(packages))
    if not names:
        return {}
    command = ["dpkg-query", "-W", "-f=${Package} ${Version}\n", *names]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return dict(line.split(" ", 1) for line in said.splitlines())
