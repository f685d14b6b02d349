"""Pages as HTML: one Jinja2 environment, and the frame that all pages share."""

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

from arcuate.dashboard import charts, words
from arcuate.dashboard.domain.board import MARKS
from arcuate.dashboard.domain.frame import Key, NavPage, Viewer
from arcuate.dashboard.settings import DashboardSettings
from arcuate.dashboard.words import Wording
from arcuate.kernel.auth import Role
from arcuate.kernel.settings import SiteSettings

FOLDER = Path(str(files("arcuate.dashboard")))


@dataclass(frozen=True)
class PageRow:
    """A row of `pages.toml`."""

    name: str
    path: str
    title: str
    roles: frozenset[Role]
    theme: str
    hint: str
    keys: tuple[Key, ...]


@dataclass(frozen=True)
class Frame:
    """What stands around a page's own content.

    Attributes:
        title: Heading of the page, also in the browser's tab: never a person's name.
        as_of: When the facts of the page were read.
        about: References of which changes concern this page (`Type/id`); empty for pages that all changes concern.
        counts: Counts beside pages of the top bar.
        absent: Keys of the page that do nothing now, and are not listed.
    """

    page: str
    title: str
    viewer: Viewer
    words: Wording
    about: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    query: str = ""
    path: str = "/"
    absent: tuple[str, ...] = ()

    @property
    def as_of(self) -> datetime:
        """Return when the page was made."""
        return self.words.now


def load_pages() -> tuple[dict[str, PageRow], tuple[Key, ...]]:
    """Read the table of pages, and the keys that work everywhere."""
    table = tomllib.loads((FOLDER / "pages.toml").read_text(encoding="utf-8"))
    rows = {
        row["name"]: PageRow(
            row["name"], row["path"], row["title"], frozenset(Role(r) for r in row["roles"]), row["theme"], row["hint"],
            tuple(_key(k) for k in row["keys"]),
        )
        for row in table["page"]
    }  # fmt: skip
    return rows, tuple(_key(k) for k in table["always"])


def _key(row: Mapping[str, Any]) -> Key:
    return Key((*row["caps"], *(("to", row["to"]) if "to" in row else ())), row["words"])


class Renderer:
    """Renders pages and parts.

    Args:
        site: Name of the site, and whether its data are synthetic.
    """

    def __init__(self, site: SiteSettings, settings: DashboardSettings) -> None:
        self.site, self.settings = site, settings
        self.pages, self.always = load_pages()
        self.assets = _digest(FOLDER / "static")
        self._environment = Environment(
            loader=FileSystemLoader(FOLDER / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
            lstrip_blocks=True,
        )  # fmt: skip
        self._environment.globals.update(
            site=site,
            settings=settings,
            charts=charts,
            say=words,
            asset=self.asset,
            rooms_word=_room_word,
            slot_marks={state.value: mark for state, mark in MARKS.items()},
        )
        self._environment.filters.update(span=words.span, percent=words.percent, counted=words.count)

    def asset(self, name: str) -> str:
        """Return the address of a file under `static/`; it changes with the content."""
        return f"/static/{self.assets}/{name}"

    def theme_of(self, page: str, chosen: str) -> str:
        """Return the theme: what the person chose at this workstation, else the page's own."""
        row = self.pages.get(page)
        return chosen if chosen in ("light", "dark") else row.theme if row else "light"

    def nav(self, viewer: Viewer, counts: Mapping[str, int], current: str) -> list[NavPage]:
        """Return the pages of a person's top bar."""
        return [
            NavPage(row.name, row.path, row.title, counts.get(row.name), "stop" if row.name == "errors" else "")
            for row in self.pages.values()
            if row.path and (viewer.may(*row.roles) or row.name == current)
            and not (row.name == "start" and counts.get("start") == 0 and current != "start")
        ]  # fmt: skip

    def text(self, template: str, **values: Any) -> str:
        """Return a template's text."""
        return self._environment.get_template(template).render(**values)

    def page(self, template: str, frame: Frame, status: int = 200, **values: Any) -> Response:
        """Return a whole page."""
        row = self.pages[frame.page]
        nav = self.nav(frame.viewer, frame.counts, frame.page)
        values = {"notice": None, **values}
        keys = (*(k for k in row.keys if not set(k.caps) & set(frame.absent)), *self.always)
        text = self.text(template, frame=frame, row=row, nav=nav, keys=keys, hint=self._hint(row), oob=False, **values)
        return HTMLResponse(text, status)

    def parts(self, folder: str, frame: Frame, names: list[str], **values: Any) -> Response:
        """Return named parts of a page (`templates/FOLDER/NAME.html`), each to take the place of the one with its id."""
        values = {"notice": None, **values}
        paths = ["said.html" if name == "said" else f"{folder}/{name}.html" for name in names]
        made = [self.text(path, frame=frame, oob=True, **values) for path in paths]
        return HTMLResponse("\n".join(made), headers={"X-Made": frame.words.clock(frame.as_of)})

    def _hint(self, row: PageRow) -> str:
        return row.hint.format(
            shown=words.percent(self.settings.shown_from), marked=words.percent(self.settings.marked_from)
        )


def _room_word(name: str) -> str:
    return name[:1].upper() + name[1:]


def _digest(folder: Path) -> str:
    """Return a mark of all files: pages name it, so that browsers keep files until they change."""
    mark = hashlib.sha256()
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        mark.update(file.relative_to(folder).as_posix().encode())
        mark.update(file.read_bytes())
    return mark.hexdigest()[:12]
