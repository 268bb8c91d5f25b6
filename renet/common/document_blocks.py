"""Blocks of a Markdown page that are written from figures, between a person's prose."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from renet.common.errors import UserError


def block_pattern(kind: str) -> re.Pattern[str]:
    """Match the blocks `<!-- kind: NAME -->` ... `<!-- end of kind -->`; the first group is the name."""
    return re.compile(rf"<!-- {kind}: (\w+) -->\n.*?<!-- end of {kind} -->", re.DOTALL)


def fill_blocks(page: str, name: str, kind: str, sections: Collection[str], text: Callable[[str], str]) -> str:
    """Fill a page's blocks.

    Args:
        page: the whole text.
        name: the page's, for messages.
        kind: of the blocks.
        sections: names of the blocks that the page must have, each once.
        text: writes the block of a name.

    Raises:
        UserError: the page has a block of another name, or lacks one.
    """
    pattern = block_pattern(kind)
    found = pattern.findall(page)
    if sorted(found) != sorted(sections):
        wrong = sorted(set(found) ^ set(sections)) or found
        raise UserError(f"{name}: one block each of {', '.join(sections)} expected; look at {', '.join(wrong)}")
    return pattern.sub(
        lambda block: f"<!-- {kind}: {block[1]} -->\n{text(block[1]).strip()}\n<!-- end of {kind} -->", page
    )
