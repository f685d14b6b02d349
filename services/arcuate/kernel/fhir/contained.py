"""Rules of FHIR R4 that hold for every resource: contained resources (dom-2 to dom-5) and narrative (txt-1, txt-2)."""

import re
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

from arcuate.kernel.errors import Json
from arcuate.kernel.fhir.invariants import Broken

_XHTML = "http://www.w3.org/1999/xhtml"
_WORDS = (
    "a abbr acronym b big blockquote br caption cite code col colgroup dd dfn div dl dt em h1 h2 h3 h4 h5 h6 hr i img li ol p pre q samp "
    "small span strong sub sup table tbody td tfoot th thead tr tt ul var"
)
_SETTINGS = (
    "abbr accesskey align alt axis bgcolor border cellhalign cellpadding cellspacing cellvalign char charoff charset cite class colspan "
    "compact coords dir frame headers height href hreflang hspace id lang longdesc name nowrap rel rev rowspan rules scope shape span "
    "src start style summary tabindex title type valign value vspace width"
)
_ELEMENTS = frozenset(_WORDS.split())
_ATTRIBUTES = frozenset(_SETTINGS.split())
_SCRIPT = re.compile(r"[\s\x00-\x20]*(javascript|vbscript|data:text)", re.IGNORECASE)
_ENTITY = re.compile(r"&(?!#|amp;|lt;|gt;|quot;|apos;)(\w+);")


def broken_containment(resource: Json) -> tuple[str, Broken] | None:
    """Return the rule that a resource's contained resources break, or None."""
    contained = resource.get("contained")
    if not isinstance(contained, list):
        return None
    named = set(_named(resource))
    for position, inner in enumerate(contained):
        if not isinstance(inner, dict):
            continue
        at, meta = f"contained[{position}]", inner.get("meta")
        if "contained" in inner:
            return "dom-2", Broken(f"{at}.contained", "a contained resource may not contain others")
        if isinstance(meta, dict) and ("versionId" in meta or "lastUpdated" in meta):
            return "dom-4", Broken(f"{at}.meta", "a contained resource has no version")
        if isinstance(meta, dict) and "security" in meta:
            return "dom-5", Broken(f"{at}.meta.security", "a contained resource has no security label of its own")
        if f"#{inner.get('id')}" not in named and "#" not in _named(inner):
            return "dom-3", Broken(f"{at}.id", "nothing refers to the contained resource")
    return None


def _named(value: Any) -> Iterator[str]:
    """Yield the texts that name something inside the same resource."""
    if isinstance(value, dict):
        for inner in value.values():
            yield from _named(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _named(inner)
    elif isinstance(value, str) and value.startswith("#"):
        yield value


def broken_narrative(div: str) -> Broken | None:
    """Return what is wrong with `text.div`: only the formatting part of XHTML may stand, and it must say something."""
    if "<!" in div.replace("<!--", "") or "<?" in div:
        return Broken("div", "declarations may not stand in a narrative")
    try:
        root = ElementTree.fromstring(_ENTITY.sub(" ", div))  # noqa: S314 - no declaration can stand in it, see above
    except (ElementTree.ParseError, ValueError):
        return Broken("div", "the narrative is no well-formed XHTML")
    if root.tag != f"{{{_XHTML}}}div":
        return Broken("div", f"the narrative is one div in the namespace {_XHTML}")
    for element in root.iter():
        if not isinstance(element.tag, str):
            continue  # a comment
        name = element.tag.removeprefix(f"{{{_XHTML}}}")
        if name not in _ELEMENTS:
            return Broken("div", "an element may not stand in a narrative")
        for attribute, text in element.attrib.items():
            if attribute.rpartition("}")[2] not in _ATTRIBUTES or _SCRIPT.match(text):
                return Broken("div", "an attribute may not stand in a narrative")
    if not "".join(root.itertext()).strip() and root.find(f".//{{{_XHTML}}}img") is None:
        return Broken("div", "the narrative says nothing")
    return None
