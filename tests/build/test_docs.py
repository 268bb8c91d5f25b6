"""The documents: every command can be parsed by what it calls, every file and link leads somewhere, and the layers'
reference has every field."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from caffe.proto import caffe_pb2
from doc_commands import REPOSITORY, Document, Snippet, documents, examples, fault, scripts
from google.protobuf.descriptor import Descriptor
from importlinter.api import read_configuration

DOCUMENTS = documents()
PROTOS = sorted((REPOSITORY / "caffe_layers/proto").glob("*.proto"))


def names(found: list[Document]) -> list[str]:
    return [str(document.file.relative_to(REPOSITORY)) for document in found]


@pytest.mark.parametrize("document", DOCUMENTS, ids=names(DOCUMENTS))
def test_commands_are_understood(document: Document) -> None:
    faults = [fault(command) for command in document.commands]
    faults += [fault(code, is_inline=True) for code in document.inline]
    assert [one for one in faults if one is not None] == []


SCRIPTS = [
    (document.file.name, script)
    for document in DOCUMENTS
    for script in re.findall(
        r"^```bash\n(.*?)^```", document.file.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
]


@pytest.mark.parametrize(("name", "script"), SCRIPTS, ids=[name for name, _ in SCRIPTS])
def test_shell_scripts_can_be_parsed_and_our_commands_in_them(name: str, script: str) -> None:
    assert subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True).stderr == ""
    joined = script.replace("\\\n", " ").replace("$SLURM_ARRAY_TASK_ID/", "3/").replace("{}/", "3/")
    joined = re.sub(r" \$[a-z]\w*", "", joined)  # a variable of the script's own, which may be empty
    ours = [found.partition(" :::")[0] for found in re.findall(r"\.venv/bin/python [^'\n]*", joined)]
    assert ours and [one for one in (fault(Snippet(name, command)) for command in ours) if one is not None] == []


@pytest.mark.parametrize("script", scripts(), ids=lambda script: script.name)
def test_examples_of_help_are_understood(script: Path) -> None:
    shown = examples(script)
    assert shown, "--help shows no example"
    assert [one for one in map(fault, shown) if one is not None] == []


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (".venv/bin/python tools/train.py --solver x --iteration-count 5", "unrecognized arguments"),
        (".venv/bin/python tools/train.py --solver x --keep none", "is not a whole number"),
        (".venv/bin/python tools/tarin.py --solver x", "there is no tools/tarin.py"),
        ("tools/predict.py --model x --weights y --out z", "required"),
        ("tools/crf.py run --predictions x ... --crf-weight 5", "unrecognized arguments"),
        ("tools/crf.py walk", "invalid choice"),
        ("OMP_NUM_THREADS=1 python data_prep/coco.py --out x", "required"),
        (".venv/bin/python tools/train.py --solver solvers/lost.prototxt", "there is no solvers/lost.prototxt"),
        ("make deom", "no target deom"),
        ("make demo DEMO_ARG=5", "no variable DEMO_ARG"),
        ("build/cpu/bin/caffe tarin -solver x", "no action tarin"),
        ("build/cpu/bin/caffe train -solvr x", "no flag -solvr"),
        ("mkdir x && bin/benchmark_net -batch 3", "no flag -batch"),
        ("renet python tools/train.py --solver x --frobnicate", "unrecognized arguments"),
        ("docker run --rm -it renet-caffe caffe train -solvr x", "no flag -solvr"),
        ("timeout -s INT 500 bin/caffe train -solvr x", "no flag -solvr"),
        ("./setup --weels wheels", "knows no --weels"),
        ("layer { name: 'x' }", "not a command"),
    ],
)
def test_wrong_commands_are_found(text: str, complaint: str) -> None:
    assert complaint in str(fault(Snippet("x.md:1", text)))


@pytest.mark.parametrize(
    "text", ["predict.py --flop", "--flop", "docs/lost.md", "tools/lost.py", "-solvr x", "generate.py --crop 5"]
)
def test_wrong_inline_code_is_found(text: str) -> None:
    assert fault(Snippet("x.md:1", text), is_inline=True) is not None


@pytest.mark.parametrize("document", DOCUMENTS, ids=names(DOCUMENTS))
def test_links_lead_somewhere(document: Document) -> None:
    assert broken_links(document) == []


def broken_links(document: Document) -> list[str]:
    broken = []
    for link in document.links:
        path, _, anchor = link.text.partition("#")
        if re.match(r"[a-z]+:", link.text):
            continue
        target = document.file.parent / path if path else document.file
        known = target.exists()
        if known and anchor:
            known = anchor in (Document.read(target) if path else document).anchors
        if not known:
            broken.append(f"{link.where}: {link.text}")
    return broken


def test_broken_links_are_found(tmp_path: Path) -> None:
    shutil.copy(REPOSITORY / "docs/layers.md", tmp_path)
    file = tmp_path / "x.md"
    file.write_text(
        "# A heading, `with` code\n## Twice\n## Twice\n"
        "[a](layers.md) [b](#a-heading-with-code) [c](#twice-1) `[d](e)`\n"
        "[e](lost.md) ![f](images/lost.png) [g](#twice-2)\n[h](layers.md#densecrf) [i](layers.md#lost) [j](http://x.y)\n"
    )
    assert broken_links(Document.read(file)) == [
        "x.md:5: lost.md",
        "x.md:5: images/lost.png",
        "x.md:5: #twice-2",
        "x.md:6: layers.md#lost",
    ]


def test_every_guide_is_linked_from_the_readme() -> None:
    readme = Document.read(REPOSITORY / "README.md")
    linked = {link.text.partition("#")[0] for link in readme.links}
    assert {f"docs/{file.name}" for file in (REPOSITORY / "docs").glob("*.md")} <= linked


# -------------------------------------------------------------------------------------------------- layers' reference


def messages() -> dict[str, Descriptor]:
    """Our layers' messages by the field of LayerParameter that carries them (`renet_param`)."""
    ours = {name for proto in PROTOS for name in re.findall(r"^message (\w+)", proto.read_text(), re.MULTILINE)}
    fields = caffe_pb2.LayerParameter.DESCRIPTOR.fields
    found = {field.name: field.message_type for field in fields if field.message_type}
    found = {name: message for name, message in found.items() if message.name in ours}
    assert len(found) == len(ours) >= 4
    return found


def rows(parameter: str) -> dict[str, tuple[str, str]]:
    """The reference's tables of a message: by field the default and the whole row."""
    text = (REPOSITORY / "docs/layers.md").read_text(encoding="utf-8")
    tables = re.findall(rf"^\| `{parameter}`.*?\n\|[-:| ]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert tables, f"docs/layers.md has no table of {parameter}"
    found = {}
    for row in "".join(tables).splitlines():
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        fields = re.findall(r"`(\w+)`", cells[0])
        defaults = [text.strip("` ") for text in cells[1].split(",")] if cells[1].count(",") else [cells[1].strip("` ")]
        for number, field in enumerate(fields):
            found[field] = (defaults[number] if len(defaults) == len(fields) else cells[1].strip("` "), row)
    return found


@pytest.mark.parametrize("parameter", list(messages()))
def test_layers_reference_has_every_field(parameter: str) -> None:
    message, documented = messages()[parameter], rows(parameter)
    assert set(documented) == {field.name for field in message.fields}
    for field in message.fields:
        default, row = documented[field.name]
        if field.is_repeated or field.message_type or not field.has_default_value:
            assert re.search(r"must be given|none|uniform|^0$|false", default), row
        elif field.enum_type:
            assert default == field.enum_type.values_by_number[field.default_value].name, row
            for value in field.enum_type.values:
                others = (REPOSITORY / "docs/layers.md").read_text(encoding="utf-8")
                assert f"`{value.name}`" in others or f": {value.name}" in others or f"or {value.name}" in others, (
                    value.name
                )
        elif isinstance(field.default_value, bool):
            assert default == str(field.default_value).lower(), row
        else:
            assert float(default) == pytest.approx(field.default_value), row


def test_layers_reference_has_every_layer() -> None:
    text = (REPOSITORY / "docs/layers.md").read_text(encoding="utf-8")
    sources = (REPOSITORY / "caffe_layers/src").rglob("*.cpp")
    types = {name for file in sources for name in re.findall(r"REGISTER_LAYER_C\w+\((\w+)", file.read_text())}
    assert len(types) >= 7
    assert [name for name in types if name not in text] == []


def test_blocks_are_taken_apart(tmp_path: Path) -> None:
    file = tmp_path / "y.md"
    file.write_text("```\nmake a \\\n   B=c\n\nmake d\n```\n```text\nnothing\n```\n`one` and `two x`\n")
    document = Document.read(file)
    assert [(command.where, command.text) for command in document.commands] == [
        ("y.md:2", "make a B=c"),
        ("y.md:5", "make d"),
    ]
    assert [(code.where, code.text) for code in document.inline] == [("y.md:10", "one"), ("y.md:10", "two x")]


def test_the_architecture_has_the_rooms_and_floors_that_there_are() -> None:
    page = (REPOSITORY / "docs/architecture.md").read_text(encoding="utf-8")
    told = {room: int(floor) for floor, room in re.findall(r"^\| (\d) \| `renet/(\w+)/` \|", page, re.M)}
    assert set(told) == {file.parent.name for file in (REPOSITORY / "renet").glob("*/__init__.py")}
    contracts = read_configuration(str(REPOSITORY / "pyproject.toml"))["contracts_options"]
    contract = next(each for each in contracts if each["id"] == "floors")
    floors = enumerate(reversed(contract["layers"]), 1)
    assert told == {room: floor for floor, rooms in floors for room in rooms.split(" | ")}
    named = re.findall(r"`((?:caffe_layers|data_prep|docker|prototxt|renet|solvers|tests|tools)/[\w/.]*)`", page)
    assert len(named) > 30
    assert [path for path in named if not (REPOSITORY / path).exists()] == []
