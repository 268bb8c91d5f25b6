"""Complaints about the samples of a split, each kind once, with the images that it concerns."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from renet.common.errors import UserError
from renet.common.text_layout import listed

_NAMED = 10  # images that a complaint names

# What to say of labels with numbers that are no class: all values that occur in them, and the number of classes, to the
# option of the converter that mends it.
LabelAdvice = Callable[[Collection[int], int], str]


class SampleError(UserError):
    """Complaint about a sample that others may share: `what` is the same in all of a kind, the file and the detail are
    the sample's own."""

    def __init__(self, where: object, what: str, detail: str = "") -> None:
        super().__init__(f"{where}: {what}{detail}")
        self.what = what


class LabelRangeError(SampleError):
    """Label with numbers that are no class; `present` are all that it holds."""

    def __init__(self, where: object, what: str, present: Collection[int]) -> None:
        super().__init__(where, what)
        self.present = frozenset(present)


@dataclass
class BadSamples:
    """Complaints of one split.

    Attributes:
        samples: how many the split would have.
        classes: number of classes C.
        advice: what a converter has to say of numbers that are no class.
        may_skip: whether the caller has --skip-bad.
    """

    samples: int
    classes: int
    advice: LabelAdvice | None = None
    may_skip: bool = True
    _messages: dict[str, str] = field(default_factory=dict)
    _ids: dict[str, list[str]] = field(default_factory=dict)
    _present: set[int] = field(default_factory=set)

    def add(self, sample_id: str, error: UserError) -> None:
        """Note one sample's complaint."""
        what = error.what if isinstance(error, SampleError) else str(error).partition(": ")[2]
        self._messages.setdefault(what, str(error))
        self._ids.setdefault(what, []).append(sample_id)
        if isinstance(error, LabelRangeError):
            self._present |= error.present

    def __len__(self) -> int:
        return sum(len(ids) for ids in self._ids.values())

    def lines(self) -> list[str]:
        """Write one line for each kind of complaint."""
        return [message + self._others(self._ids[what][1:]) for what, message in self._messages.items()]

    def _others(self, ids: list[str]) -> str:
        if not ids:
            return ""
        return f"; the same in {listed(ids, _NAMED)}"

    def advise(self) -> str:
        """Write the end of the message: how many there are, and what mends it."""
        advice = [self.advice(self._present, self.classes)] if self._present and self.advice else []
        if self.may_skip and len(self) < self.samples:
            advice.append("mend it or leave it out with --skip-bad")
        count = f" ({len(self)} of {self.samples} samples are bad)" if len(self) > 1 else ""
        return count + "".join(f"; {part}" for part in advice)
