"""Commands under the names that pip gives them: `renet-train` is tools/train.py."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

from renet.common.repository import INSTALLED, SHIPPED

COMMANDS = {
    "renet-convert-coco": "data_prep/coco.py",
    "renet-convert-folder": "data_prep/folder.py",
    "renet-convert-stanford-background": "data_prep/stanford_background.py",
    "renet-convert-synthetic-scenes": "data_prep/synthetic_scenes.py",
    "renet-convert-vgg16": "data_prep/vgg16.py",
    "renet-convert-voc2012": "data_prep/voc2012.py",
    "renet-convert-weights": "tools/convert_weights.py",
    "renet-crf": "tools/crf.py",
    "renet-demo": "tools/demo.py",
    "renet-evaluate": "tools/evaluate.py",
    "renet-experiments": "tools/experiments.py",
    "renet-export-onnx": "tools/export_onnx.py",
    "renet-generate": "prototxt/generate.py",
    "renet-hold-out": "data_prep/hold_out.py",
    "renet-import-model": "tools/import_model.py",
    "renet-merge": "tools/merge.py",
    "renet-network-cost": "tools/network_cost.py",
    "renet-pack": "tools/pack.py",
    "renet-picture-sheet": "tools/picture_sheet.py",
    "renet-predict": "tools/predict.py",
    "renet-report": "tools/report.py",
    "renet-runs": "tools/runs.py",
    "renet-scaling": "tools/scaling.py",
    "renet-serve": "tools/serve.py",
    "renet-train": "tools/train.py",
    "renet-verify": "tools/verify.py",
    "renet-visualize": "tools/visualize.py",
}
_BY_FILE = {Path(script).name: name for name, script in COMMANDS.items()}
_MENTION = re.compile(r"(?:\.venv/bin/python )?(?:(?:tools|data_prep|prototxt)/)?\b(\w+\.py)\b")


def main() -> None:
    """Run the script whose command this process was started as."""
    script = str(SHIPPED / COMMANDS[Path(sys.argv[0]).name])
    sys.argv[0] = script
    runpy.run_path(script, run_name="__main__")


def as_typed(text: str) -> str:
    """Write the commands in a text as they are typed here: where pip installed them, `tools/train.py` is
    `renet-train`."""
    if not INSTALLED:
        return text
    return _MENTION.sub(lambda found: _BY_FILE.get(found[1], found[0]), text)
