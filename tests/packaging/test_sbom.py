"""The list of all parts of an archive: complete, with versions, and the same for the same parts."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from segmentation_helpers import REPOSITORY

from renet.common.repository import version
from renet.packaging.archive import packages_of
from renet.packaging.libraries import resolved
from renet.packaging.sbom import CAFFE_COMMIT, SBOM, python_packages, write_sbom


def test_every_part_is_listed_with_its_version(tmp_path: Path) -> None:
    library = next(iter(resolved(Path("/usr/bin/env")).values()))
    (package,) = packages_of([library]).values()
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        write_sbom(folder, [package, package], ["onednn_cpu_gomp-2022.2.1"])
    assert (tmp_path / "a" / SBOM).read_bytes() == (tmp_path / "b" / SBOM).read_bytes()
    content = json.loads((tmp_path / "a" / SBOM).read_text())
    assert (content["bomFormat"], content["specVersion"]) == ("CycloneDX", "1.6")
    assert content["metadata"]["component"]["version"] == version()
    found = {part["purl"] for part in content["components"]}
    number = subprocess.run(["dpkg-query", "-W", "-f=${Version}", package], capture_output=True, text=True).stdout
    named = {(part["name"], part["version"]) for part in content["components"]}
    assert (package, number) in named
    assert f"pkg:github/bvlc/caffe@{CAFFE_COMMIT}" in found
    assert "pkg:pypi/onednn-cpu-gomp@2022.2.1" in found
    assert {f"pkg:pypi/{name.lower().replace('_', '-')}@{number}" for name, number in python_packages()} <= found
    assert len(found) == len(content["components"]) == 3 + len(python_packages())
    root = next(one for one in content["dependencies"] if one["ref"] == content["metadata"]["component"]["bom-ref"])
    assert len(root["dependsOn"]) == len(found)


def test_the_commit_of_caffe_is_the_one_that_is_fetched() -> None:
    script = (REPOSITORY / "caffe_layers/scripts/fetch_source.py").read_text()
    assert re.search(r'^COMMIT = "(\w+)"$', script, re.M)[1] == CAFFE_COMMIT
