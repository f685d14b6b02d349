"""What every page shares: marks, facts, notices, keys, and the person who looks."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from arcuate.kernel.auth import Role


class Mark(StrEnum):
    """A status by shape; the word always stands beside it, so that no meaning hangs on colour."""

    STOP = "stop"
    LOOK = "look"
    DONE = "done"
    WAITING = "waiting"
    UNKNOWN = "unknown"
    MACHINE = "machine"
    PERSON = "person"
    RUNNING = "running"
    NEXT = "next"
    LOCKED = "locked"
    MESSAGE = "message"
    SAME = "same"


@dataclass(frozen=True)
class Viewer:
    """The person who looks at a page.

    Attributes:
        theme: "light" or "dark".
        letter_keys: Whether single letters act as keys (WCAG 2.1.4).
        csrf: What every write must carry.
    """

    id: str
    name: str
    roles: frozenset[Role]
    theme: str
    letter_keys: bool
    csrf: str

    def may(self, *roles: Role) -> bool:
        """Return whether one of the roles is held."""
        return bool(self.roles.intersection(roles))


@dataclass(frozen=True)
class Fact:
    """One fact of the summary line: a figure and its words.

    Attributes:
        tone: "", "look" or "stop".
        before: True when the words stand before the figure.
    """

    figure: str
    words: str
    tone: str = ""
    before: bool = False
    href: str = ""


@dataclass(frozen=True)
class Silent:
    """A part that has no answer: which room, since when, and what is shown instead.

    Attributes:
        since: None when the room answered, but not with what was asked.
        instead: What is shown instead, or why the room said no.
        asked_again: Whether the page asks again by itself.
        slow: The answer took too long for this page, and comes in by itself.
    """

    room: str
    since: datetime | None
    instead: str
    asked_again: bool = True
    slow: bool = False


@dataclass(frozen=True)
class Notice:
    """Two lines with a mark."""

    title: str
    text: str = ""
    mark: Mark = Mark.DONE
    reference: str = ""


@dataclass(frozen=True)
class Key:
    """One key of the key bar.

    Attributes:
        caps: Key caps as printed, for example ("J", "K").
        words: What they do.
    """

    caps: tuple[str, ...]
    words: str


@dataclass(frozen=True)
class NavPage:
    """A page of the top bar."""

    name: str
    path: str
    title: str
    count: int | None = None
    tone: str = ""
