"""The examples of docs/serving.md, run as they stand but for the port."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from service_helpers import SECONDS, encoded, picture, served, write_network

pytest.importorskip("caffe", reason="pycaffe is not built")


def test_the_pages_examples(repository: Path, tmp_path: Path) -> None:
    page = (repository / "docs/serving.md").read_text(encoding="utf-8")
    write_network(tmp_path)
    (tmp_path / "street.jpg").write_bytes(encoded(picture(48, 64), "JPEG"))
    with served(tmp_path) as service:
        page = page.replace("http://127.0.0.1:8000", service.url)
        commands, python = (
            re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL) for language in ("sh", "python")
        )
        shell = ["bash", "-euc", "\n".join(commands).replace("curl ", "curl --fail-with-body -sS ")]
        done = subprocess.run(shell, cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS)
        assert (done.returncode, done.stderr) == (0, "")
        assert '"classes":[{"index":' in done.stdout
        assert Image.open(tmp_path / "labels.png").mode == "P"
        assert Image.open(tmp_path / "overlay.png").mode == "RGB"
        program = [sys.executable, "-W", "ignore", "-c", "\n".join(python)]
        done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS)
        assert (done.returncode, done.stderr) == (0, "")
        first, *shares = done.stdout.splitlines()
        assert first == "(48, 64) (3, 48, 64)"
        assert sum(int(line.split()[2]) for line in shares) == 48 * 64


def test_the_tables_are_those_of_the_service(repository: Path, tmp_path: Path) -> None:
    page = (repository / "docs/serving.md").read_text(encoding="utf-8")
    write_network(tmp_path)
    with served(tmp_path) as service:
        described = service.get("/openapi.json").json()["paths"]
        answer = service.predict(encoded(picture()), "application/x-npz")
    for path, ways in described.items():
        assert f"| `{next(iter(ways)).upper()} {path}` |" in page
    predict = described["/predict"]["post"]
    for parameter in predict["parameters"]:
        assert f"`{parameter['name']}`" in page or f"`{parameter['name']}=" in page
    told = set(re.findall(r"\d+", " ".join(re.findall(r"^\| (\d{3}(?:, \d{3})*) \|", page, re.MULTILINE))))
    assert told == predict["responses"].keys() - {"200"}
    for kind in predict["responses"]["200"]["content"]:
        assert f"| `{kind}`" in page
    assert set(np.load(io.BytesIO(answer.content)).files) == {"probabilities", "labels", "labels.png"}
