"""Class file: the names of the labels 0, 1, ..., one a line, with colours and numbers where people have them."""

from __future__ import annotations

import colorsys
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from renet.common.errors import UserError
from renet.common.text_files import numbered_lines
from renet.data.dataset import IGNORE_LABEL, MOST_CLASSES

LABELME_IGNORED = "__ignore__"  # the first line of labelme's labels.txt: number -1, which labelme2voc writes as 255
_GOLDEN_RATIO = 0.618034
_LONGEST_LINE = 1000

_GAP = r"[\s,;]+"
_THREE = rf"(\d+){_GAP}(\d+){_GAP}(\d+)"
_COLOUR_LAST = re.compile(rf"(.*\S){_GAP}{_THREE}")
_COLOUR_FIRST = re.compile(rf"{_THREE}{_GAP}(\D.*)")
_HEX = re.compile(r"#(?:[0-9a-f]{3}|[0-9a-f]{6})", re.IGNORECASE)
_HEX_LAST = re.compile(rf"(.*\S){_GAP}(#\S*)")
_HEX_FIRST = re.compile(rf"(#[0-9a-f]{{6}}){_GAP}(\S.*)", re.IGNORECASE)
_NUMBER_FIRST = re.compile(r"(\d+)(?:\s*[:.)]\s*|[\s,;]+)(.*[^\d\s,;].*)")
_NUMBER_LAST = re.compile(r"(.*[^\s,;:=])\s*[\s,;:=]\s*(\d+)")
_HEADING = re.compile(rf"name{_GAP}r{_GAP}g{_GAP}b", re.IGNORECASE)  # of a table name,r,g,b

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class _Line:
    """What a line says: its number in the file, the name and what may be the class's number in it, a colour."""

    number: int
    text: str
    colour: Colour | None = None


@dataclass(frozen=True)
class ClassFile:
    """Content of a class file.

    Attributes:
        names: of the classes 0, 1, ...
        palette: C x 3 uint8, RGB.
        coloured: the classes whose colours stand in the file; the others' were made up.
        ignored_colours: colours of pixels to ignore.
    """

    names: list[str]
    palette: np.ndarray
    coloured: frozenset[int]
    ignored_colours: tuple[Colour, ...]


def read_classes(file: Path) -> ClassFile:
    """Read the classes' names and colours from a class file.

    A line is a name, with an optional colour before or after it: `#rrggbb` or three numbers. Classes without one get
    colours that differ well from each other. Lines may carry the labels' numbers, 0, 1, ..., in front or at the end.
    A line 255 and labelme's first line `__ignore__` name pixels to ignore and no class. Lines that begin with # and are
    no colour with a name do not count.

    Raises:
        UserError: no such file, no class, a name twice, too many, a bad colour, or numbers that are not the lines';
            names the file and the line.
    """
    numbered = numbered_lines(file)
    for number, text in numbered:
        if len(text) > _LONGEST_LINE:
            raise UserError(f"{file}, line {number}: has {len(text):,} characters; a class has a name and a colour")
    lines = [_coloured(number, text, file) for number, text in numbered if not _is_comment(text)]
    lines, ignored = _without_numbers(lines, file)
    if lines and lines[0].text == LABELME_IGNORED:
        ignored.append(lines.pop(0))
    names: list[str] = []
    for line in lines:
        name = " ".join(line.text.strip(" \t,;:").split())
        if not name:
            raise UserError(f"{file}, line {line.number}: a colour without a name")
        if name == LABELME_IGNORED:
            raise UserError(
                f"{file}, line {line.number}: {name} stands in the first line of labelme's files, or nowhere"
            )
        if name in names:
            raise UserError(f"{file}, line {line.number}: the class {name!r} comes twice")
        names.append(name)
    if not names:
        raise UserError(f"{file}: names no class; it holds one name a line")
    if len(names) > MOST_CLASSES:
        raise UserError(f"{file}: {len(names)} classes; at most {MOST_CLASSES} fit into 8-bit labels")
    return ClassFile(
        names,
        np.array([line.colour or _colour_of(label) for label, line in enumerate(lines)], np.uint8),
        frozenset(label for label, line in enumerate(lines) if line.colour),
        tuple(line.colour for line in ignored if line.colour),
    )


def _is_comment(text: str) -> bool:
    return _HEADING.fullmatch(text) is not None or (text.startswith("#") and not _HEX_FIRST.fullmatch(text))


def _coloured(number: int, text: str, file: Path) -> _Line:
    """A line with its colour apart."""
    where = f"{file}, line {number}"
    if found := _HEX_FIRST.fullmatch(text):
        return _Line(number, found[2], _of_hex(found[1]))
    if found := _HEX_LAST.fullmatch(text):
        if not _HEX.fullmatch(found[2]):
            raise UserError(f"{where}: {found[2]} is no colour like #87ceeb")
        return _Line(number, found[1], _of_hex(found[2]))
    if found := _COLOUR_LAST.fullmatch(text):
        return _Line(number, found[1], _of_numbers(found.groups()[1:], where))
    if found := _COLOUR_FIRST.fullmatch(text):
        return _Line(number, found[4], _of_numbers(found.groups()[:3], where))
    if re.fullmatch(_THREE, text):
        raise UserError(f"{where}: a colour without a name")
    return _Line(number, text)


def _of_hex(text: str) -> Colour:
    digits = text[1:] if len(text) == 7 else "".join(2 * digit for digit in text[1:])
    red, green, blue = bytes.fromhex(digits)
    return red, green, blue


def _of_numbers(texts: Sequence[str], where: str) -> Colour:
    red, green, blue = (int(text) for text in texts)
    if max(red, green, blue) > 255:
        raise UserError(f"{where}: the colour {red} {green} {blue} has a part above 255")
    return red, green, blue


def _without_numbers(lines: list[_Line], file: Path) -> tuple[list[_Line], list[_Line]]:
    """The lines' names alone, where each line carries its class's number; and a line of pixels to ignore.

    Raises:
        UserError: the numbers are not 0, 1, ... in the order of the lines.
    """
    for pattern, at, rest in ((_NUMBER_FIRST, 1, 2), (_NUMBER_LAST, 2, 1)):
        found = [pattern.fullmatch(line.text) for line in lines]
        if len(lines) < 2 or not all(found):
            continue
        numbers = [int(match[at]) for match in found if match]
        named = [replace(line, text=match[rest]) for line, match in zip(lines, found) if match]
        ignored: list[_Line] = []
        if numbers[-1] == IGNORE_LABEL:
            numbers, named, ignored = numbers[:-1], named[:-1], [_with_colour(named[-1], file)]
        if len({line.text for line in named}) < len(named):
            continue  # "lane 0", "lane 1": the numbers belong to the names
        if numbers == list(range(len(numbers))):
            return [_with_colour(line, file) for line in named], ignored
        if at == 1 and numbers == sorted(set(numbers)):
            last = len(numbers) - 1
            mend = (
                f"if the labels begin with 1, too, say --map 0={IGNORE_LABEL} 1-{last + 1}=0-{last}"
                if numbers == list(range(1, last + 2))
                else f"--map {numbers[0]}=0 {numbers[1]}=1 ... turns the labels' numbers into the lines'"
            )
            raise UserError(
                f"{file}, line {named[0].number}: the number {numbers[0]} of the first class, which is label 0; write "
                f"the names without numbers; {mend}"
            )
    return lines, []


def _with_colour(line: _Line, file: Path) -> _Line:
    """A line whose number is gone, with the colour that stood behind it."""
    return line if line.colour else _coloured(line.number, line.text, file)


def _colour_of(label: int) -> Colour:
    """A colour for class `label`: hues by the golden ratio, so that neighbours in the list lie far apart."""
    hue = (0.55 + label * _GOLDEN_RATIO) % 1.0
    value = (0.95, 0.65, 0.80)[label % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.75, value)
    return round(255 * red), round(255 * green), round(255 * blue)
