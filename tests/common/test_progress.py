"""Progress in a log: lines, also of a bar within another."""

from __future__ import annotations

import pytest

from renet.common import progress as module
from renet.common.progress import progress


def test_a_bar_within_another_leaves_no_escapes(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(module, "SHORTEST_BETWEEN_PLAIN_LINES", 0.0)
    with progress(total=2, description="images", unit="image") as outer:
        for name in "ab":
            for _ in progress(range(3), description=name, unit="row", within=True):
                pass
            outer.update()
    lines = capfd.readouterr().err.splitlines()
    assert all("\x1b" not in line and line.strip() for line in lines)
    assert lines[0].startswith("images: 0/2") and lines[-1].startswith("images: 2/2")
    assert {line.split(":")[0] for line in lines} == {"images", "a", "b"}
