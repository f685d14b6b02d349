"""The markup that a draft may hold: a small part of XHTML, checked, then written as HTML and as text from the same tree.

A template that gives anything else (a script, a style, a link, an attribute that acts) is refused; so what people see in HTML and what
dictation gets as text cannot differ.
"""

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

from arcuate.kernel.errors import BadInput

_BLOCKS = frozenset(
    {"h2", "h3", "p", "ul", "ol", "li", "table", "caption", "thead", "tbody", "tr", "blockquote", "div", "section"}
)
_INLINE = frozenset({"th", "td", "span", "strong", "em", "sup", "br"})
_ATTRIBUTES = frozenset({"class", "scope", "lang", "title", "colspan"})
_DATA = re.compile(r"data-[a-z][a-z\-]{0,30}\Z")
_DEPTH = 20


@dataclass
class Node:
    """One element, or a piece of text (then `tag` is empty)."""

    tag: str
    text: str = ""
    attributes: tuple[tuple[str, str], ...] = ()
    children: list["Node"] = field(default_factory=list)


class _Builder(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Node("div")
        self._open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _BLOCKS | _INLINE:
            raise BadInput(f"The element <{tag[:20]}> may not stand in a report")
        for name, _ in attrs:
            if name not in _ATTRIBUTES and not _DATA.match(name):
                raise BadInput(f"The attribute {name[:20]} may not stand in a report")
        if len(self._open) > _DEPTH:
            raise BadInput("The markup is nested too deeply")
        node = Node(tag, attributes=tuple((name, value or "") for name, value in attrs))
        self._open[-1].children.append(node)
        if tag != "br":
            self._open.append(node)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag != "br":
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag == "br":
            return
        if self._open[-1].tag != tag or len(self._open) == 1:
            raise BadInput(f"The element <{tag[:20]}> is closed where it is not open")
        self._open.pop()

    def handle_data(self, data: str) -> None:
        beside = self._open[-1].children
        if beside and not beside[-1].tag:
            beside[-1].text += data
        else:
            beside.append(Node("", data))

    def handle_comment(self, data: str) -> None:
        raise BadInput("A comment may not stand in a report")

    def handle_decl(self, decl: str) -> None:
        raise BadInput("A declaration may not stand in a report")

    def handle_pi(self, data: str) -> None:
        raise BadInput("A processing instruction may not stand in a report")

    def unknown_decl(self, data: str) -> None:
        raise BadInput("A declaration may not stand in a report")

    def finish(self) -> Node:
        self.close()
        if len(self._open) != 1:
            raise BadInput(f"The element <{self._open[-1].tag}> is not closed")
        return self.root


def parse(markup: str) -> Node:
    """Return the tree of a section's markup.

    Raises:
        BadInput: It holds anything outside the allowed part of XHTML, or is not well formed.
    """
    builder = _Builder()
    builder.feed(markup)
    return builder.finish()


def to_html(node: Node) -> str:
    """Return the children of a node as XHTML."""
    return "".join(_html(child) for child in node.children)


def _html(node: Node) -> str:
    if not node.tag:
        return html.escape(node.text, quote=False)
    attributes = "".join(f' {name}="{html.escape(value)}"' for name, value in node.attributes)
    if node.tag == "br":
        return f"<br{attributes}/>"
    return f"<{node.tag}{attributes}>{to_html(node)}</{node.tag}>"


def to_text(node: Node) -> str:
    """Return the children of a node as plain text: headings in capitals, a table row as `name: value, value (state)`."""
    return "\n".join(line for child in node.children for line in _lines(child)).strip("\n")


def _lines(node: Node) -> Iterator[str]:
    match node.tag:
        case "":
            if node.text.strip():
                yield _squeezed(node.text)
        case "h2" | "h3":
            yield ""
            yield _inline(node).upper()
        case "p" | "caption":
            yield from _inline(node).split("\n")
        case "li":
            yield f"- {_inline(node)}"
        case "blockquote":
            yield from (f"> {line}" for line in _inline(node).split("\n"))
        case "thead":
            return
        case "tr":
            yield _row(node)
        case _:
            if any(child.tag in _BLOCKS for child in node.children):
                yield from (line for child in node.children for line in _lines(child))
            elif (line := _inline(node)).strip():
                yield line


def _row(node: Node) -> str:
    cells = [child for child in node.children if child.tag in {"th", "td"}]
    texts = [text for cell in cells if (text := _inline(cell).replace("\n", " "))]
    named = bool(cells) and cells[0].tag == "th" and len(texts) > 1
    line = f"{texts[0]}: {texts[1]}" if named else "".join(texts[:1])
    for text in texts[2:] if named else texts[1:]:
        line += f" {text}" if text.startswith("(") else f", {text}"
    return line


def _inline(node: Node) -> str:
    """Return the text of an element; white space counts once, only <br> makes a new line."""
    parts = "".join(
        "\n" if c.tag == "br" else c.text.replace("\n", " ") if not c.tag else _inline(c) for c in node.children
    )
    return "\n".join(_squeezed(line) for line in parts.split("\n")).strip()


def _squeezed(text: str) -> str:
    return re.sub(r"[ \t\n]+", " ", text).strip()
