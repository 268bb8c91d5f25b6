"""What the documents say that can be checked: commands, options, files, links. See test_docs.py."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from renet.common.commands import COMMANDS

REPOSITORY = Path(__file__).resolve().parents[1]
FOLDERS = ("caffe_layers", "data_prep", "docker", "docs", "prototxt", "renet", "solvers", "tests", "tools")
# Programs that are not ours, which are taken as they stand.
OTHERS = {".", "cd", "cp", "git", "ln", "mkdir", "pip", "tar", "tee", "tensorboard", "xz"}
# Options of those (docker's above all), of Slurm and of GNU parallel that a text names.
OTHERS_OPTIONS = {
    *("--build-arg", "--gpus", "--ipc", "--mount", "--rm", "--stop-timeout", "--user", "--userns", "--help"),
    *("--port", "--logdir"),
    *("--array", "--gpus-per-task", "--sshlogin", "--workdir"),
    *("--bind-to", "--oversubscribe", "--allow-run-as-root", "--mca", "--mpi", "--signal"),
}
# What a script calls the function that makes its command line.
PARSERS = ("make_parser", "build_parser", "parser")
ACTIONS = ("train", "test", "time", "device_query")


@dataclass(frozen=True)
class Snippet:
    """A piece of code in a document.

    Attributes:
        where: `file:line`.
        text: one command or line of a block, or one piece of inline code.
    """

    where: str
    text: str


@dataclass(frozen=True)
class Document:
    """A Markdown file, taken apart.

    Attributes:
        file: the file.
        commands: the commands of blocks without a language.
        inline: inline code.
        links: targets of links and pictures.
        anchors: what a link may name behind `#`.
    """

    file: Path
    commands: tuple[Snippet, ...]
    inline: tuple[Snippet, ...]
    links: tuple[Snippet, ...]
    anchors: frozenset[str]

    @classmethod
    def read(cls, file: Path) -> Document:
        """Take a file apart."""
        commands, inline, links, anchors = [], [], [], []
        language, pending, began = None, "", 0
        name = file.relative_to(REPOSITORY) if file.is_relative_to(REPOSITORY) else file.name
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            where = f"{name}:{number}"
            if line.startswith("```"):
                language = line[3:].strip() if language is None else None
            elif language is not None:
                if language == "" and line.strip():
                    began = began if pending else number
                    pending += line.strip().removesuffix("\\")
                    if not line.rstrip().endswith("\\"):
                        commands.append(Snippet(f"{name}:{began}", pending.strip()))
                        pending = ""
            else:
                inline += [Snippet(where, text) for text in re.findall(r"`([^`]+)`", line)]
                bare = re.sub(r"`[^`]*`", "", line)
                links += [Snippet(where, target) for target in re.findall(r"\]\(([^)\s]+)\)", bare)]
                if match := re.match(r"#+ +(.*)", line):
                    anchors.append(_anchor(match[1], anchors))
        return cls(file, tuple(commands), tuple(inline), tuple(links), frozenset(anchors))


def _anchor(heading: str, before: list[str]) -> str:
    """GitHub's anchor of a heading."""
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
    anchor = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
    copies = sum(re.fullmatch(rf"{re.escape(anchor)}(-\d+)?", one) is not None for one in before)
    return f"{anchor}-{copies}" if copies else anchor


def documents() -> list[Document]:
    """All Markdown files of the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "*.md"], cwd=REPOSITORY, capture_output=True, text=True
    )
    names = listed.stdout.split() or [
        "README.md",
        *(f"docs/{file.name}" for file in (REPOSITORY / "docs").glob("*.md")),
    ]
    return [Document.read(REPOSITORY / name) for name in names]


def fault(snippet: Snippet, is_inline: bool = False) -> str | None:
    """What is wrong with a command (or with inline code that may be one); None where nothing is."""
    try:
        for words in _simple_commands(snippet.text):
            if is_inline and not _is_ours(words):
                _check_parts(words)
                continue
            _check(words, relaxed=is_inline)
    except _Fault as found:
        return f"{snippet.where}: {snippet.text}: {found}"
    return None


class _Fault(Exception):
    pass


def _simple_commands(text: str) -> Iterator[list[str]]:
    """The commands of a line, each as words; without assignments before them, redirections and what closes a loop."""
    body = re.fullmatch(r"\w+\(\) \{ (.*) \}", text)  # of a shell function
    lexer = shlex.shlex(body[1] if body else text.removeprefix("$ "), posix=True, punctuation_chars="();&|<>")
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:
        words = text.split()
    command: list[str] = []
    for word in [*words, ";"]:
        if re.fullmatch(r"[;&|]+", word):
            while command and re.fullmatch(r"[A-Z_][A-Z0-9_]*=.*", command[0]):
                command.pop(0)
            if command:
                yield command
            command = []
        elif not re.fullmatch(r"2?[<>]+&?\d?", word):
            command.append(word)


def _is_ours(words: list[str]) -> bool:
    first = words[0]
    if first == "make":
        return len(words) > 1
    programs = ("caffe", "benchmark_net")
    return (
        first in COMMANDS
        or _is_python(first)
        or _script(first) is not None
        or (Path(first).name in programs and len(words) > 1)
    )


def _is_python(word: str) -> bool:
    return re.fullmatch(r"(\.venv/bin/)?python(3(\.11)?)?", word) is not None


def _script(word: str) -> Path | None:
    """The script that a word names, by its path or, as texts do, by its name alone."""
    if not word.endswith(".py"):
        return None
    if "/" in word:
        return REPOSITORY / word.removeprefix("renet-caffe/")  # the folder of an unpacked bundle
    found = [REPOSITORY / folder / word for folder in ("tools", "data_prep", "prototxt")]
    return next((file for file in found if file.is_file()), None)


def _check(words: list[str], relaxed: bool) -> None:
    first = words[0]
    if first in COMMANDS:
        words = [COMMANDS[first], *words[1:]]
    if _is_python(first):
        if words[1:2] == ["-m"]:
            return
        words = words[1:]
        if not words or words[0].startswith("-"):
            return
        if not words[0].endswith(".py"):
            raise _Fault("no script")
    if words[0].endswith(".py"):
        _check_script(words, relaxed)
    elif first == "make":
        _check_make(words[1:])
    elif Path(first).name in ("caffe", "benchmark_net"):
        _check_program(words)
    elif first in ("docker", "renet"):
        _check_container(words)
    elif first == "timeout":
        start = next((i for i, word in enumerate(words[1:], 1) if _is_ours([word, ""])), None)
        if start is None:
            raise _Fault("of what is the time-out?")
        _check(words[start:], relaxed)
    elif Path(first).name == "mpirun":
        start = next((i for i, word in enumerate(words[1:], 1) if _is_ours([word, ""])), None)
        if start is not None:
            _check(words[start:], relaxed)
    elif first == "./setup":
        text = (REPOSITORY / "renet/packaging/setup.sh").read_text()
        unknown = [word for word in words[1:] if word.startswith("--") and word not in text]
        if unknown:
            raise _Fault(f"the archive's setup knows no {unknown[0]}")
    elif not {first, Path(first).name} & OTHERS:
        raise _Fault("not a command that this test knows (a block of something else names its language: ```text)")
    _check_files(words)


def _check_parts(words: list[str]) -> None:
    """Inline code that is no command: options and files in it."""
    for word in words:
        if word.startswith("--"):
            option = word.partition("=")[0]
            if option not in _all_options() | OTHERS_OPTIONS and len(option) > 2:
                raise _Fault(f"no tool has the option {option}")
        elif re.fullmatch(r"-[a-z]{3,}", word) and word not in _flags("caffe") | _flags("benchmark_net"):
            raise _Fault(f"neither caffe nor benchmark_net has the flag {word}")
    if words[0] in ("docker", "renet"):
        return
    _check_files(words)


def _check_files(words: list[str]) -> None:
    for word in words:
        path = word.partition("=")[2] if word.startswith("--") and "=" in word else word
        path = path.rstrip(".,:")
        is_placeholder = re.search(r"[<>{}$]|\.\.\.|…|\b[A-Z]\b", path)
        if path.split("/")[0] not in FOLDERS or "/" not in path or is_placeholder:
            continue
        if not any(REPOSITORY.glob(path.rstrip("/"))):
            raise _Fault(f"there is no {path}")


def _check_script(words: list[str], relaxed: bool) -> None:
    file = _script(words[0])
    if file is None or not file.is_file():
        raise _Fault(f"there is no {words[0]}")
    arguments = [word for word in words[1:] if word not in ("...", "…")]
    relaxed = relaxed or len(arguments) < len(words) - 1
    if relaxed and (not arguments or not arguments[0].strip()):
        return
    problem = _parsing_error(file, arguments, relaxed)
    if problem is not None:
        raise _Fault(problem)


def _parsing_error(file: Path, arguments: list[str], relaxed: bool) -> str | None:
    parser = make_parser(file)
    if relaxed:
        _demand_nothing(parser)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            parser.parse_args(arguments)
    except SystemExit as end:
        problem = said.getvalue().strip()
        is_placeholder = re.search(r"invalid choice: '\$?[A-Z]+' \(choose", problem)
        if end.code and not is_placeholder:
            return problem.splitlines()[-1]
    return None


def make_parser(file: Path) -> argparse.ArgumentParser:
    """The command line of one of the repository's scripts."""
    module = importlib.import_module(".".join(file.relative_to(REPOSITORY).with_suffix("").parts))
    for name in PARSERS:
        if hasattr(module, name):
            return getattr(module, name)()
    raise _Fault(f"{file.name} has no command line")


def _demand_nothing(parser: argparse.ArgumentParser) -> None:
    for action in parser._actions:
        action.required = False
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                _demand_nothing(sub)
        elif action.nargs in (None, "+"):
            action.nargs = "?" if action.nargs is None else "*"
    for group in parser._mutually_exclusive_groups:
        group.required = False


def _check_make(words: list[str]) -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    for word in words:
        name, equals, _ = word.partition("=")
        if equals and not re.search(rf"^{name} \?=|\$\({name}\)|\$\$\{{{name}\b", makefile, re.MULTILINE):
            raise _Fault(f"the Makefile has no variable {name}")
        if not equals and not re.search(rf"^{re.escape(name)}:", makefile, re.MULTILINE):
            raise _Fault(f"the Makefile has no target {name}")


@cache
def _flags(program: str) -> frozenset[str]:
    """The flags of one of Caffe's programs, as its -help tells them."""
    done = subprocess.run([REPOSITORY / "build/cpu/bin" / program, "-help"], capture_output=True, text=True)
    own = re.search(rf"Flags from \S*/{program}\.cpp:(.*?)(\n\n\n|\Z)", done.stdout + done.stderr, re.DOTALL)
    assert own, f"{program} -help tells no flags"
    return frozenset(re.findall(r"^    (-\w+) ", own[1], re.MULTILINE)) | {"-help"}


def _check_program(words: list[str]) -> None:
    program = Path(words[0]).name
    arguments = words[1:]
    if program == "caffe":
        if arguments and arguments[0] not in (*ACTIONS, "...", "-version"):
            raise _Fault(f"caffe has no action {arguments[0]}")
        arguments = arguments[1:]
    for word in arguments:
        if re.fullmatch(r"-+[a-z_]+(=.*)?", word) and word.partition("=")[0] not in _flags(program):
            raise _Fault(f"{program} has no flag {word}")


def _check_container(words: list[str]) -> None:
    """A command in the image, if there is one."""
    if words[0] == "renet":
        inner = words[1:]
    else:
        image = next((i for i, word in enumerate(words) if re.fullmatch(r"renet-caffe(:\w+)?", word)), None)
        inner = words[image + 1 :] if image is not None and words[1] == "run" else []
    if inner and inner[0] != "$@":
        _check(inner, relaxed=False)


def scripts() -> list[Path]:
    """Our scripts with a command line."""
    files = [file for folder in ("tools", "data_prep", "prototxt") for file in (REPOSITORY / folder).glob("*.py")]
    pattern = re.compile(rf"^def ({'|'.join(PARSERS)})\(\)", re.MULTILINE)
    return sorted(file for file in files if pattern.search(file.read_text(encoding="utf-8")))


def examples(script: Path) -> list[Snippet]:
    """The commands that a script's --help shows."""
    epilog = re.sub(r"\\\n\s*", "", make_parser(script).epilog or "")
    lines = [line.strip() for line in epilog.splitlines()]
    return [Snippet(script.name, line) for line in lines if re.match(r"((\.venv/bin/)?python3?|(\w+/)+\w+\.py) ", line)]


@cache
def _all_options() -> frozenset[str]:
    """The options of all our scripts, and of the archive's setup."""
    options = set(re.findall(r"--[a-z]+", (REPOSITORY / "renet/packaging/setup.sh").read_text()))
    for file in scripts():
        options |= _options_of(make_parser(file))
    return frozenset(options)


def _options_of(parser: argparse.ArgumentParser) -> set[str]:
    found = {option for action in parser._actions for option in action.option_strings}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                found |= _options_of(sub)
    return found
