"""Tokens, contrast, charts and assets: what the design page promises and a machine can check."""

import itertools
import re
from pathlib import Path

import pytest

from arcuate.dashboard import charts
from arcuate.dashboard.render import FOLDER, load_pages

CSS = (FOLDER / "static" / "arcuate.css").read_text(encoding="utf-8")
TOKENS = {
    "light": {
        "bg": "#F2F4F7", "surface": "#FFFFFF", "sunken": "#E8ECF1", "line": "#DBE1E8", "line_strong": "#7D8A99", "ink": "#14202C", "ink_2": "#43525F",
        "ink_3": "#596775", "accent": "#155CA8", "accent_ink": "#FFFFFF", "accent_soft": "#E3EEF9", "stop": "#AF2A17", "stop_soft": "#FBE8E4",
        "stop_line": "#E3A598", "watch": "#7A5200", "watch_fill": "#B87A00", "watch_soft": "#FCF1D8", "watch_line": "#DDB65C", "machine": "#66399B",
        "machine_soft": "#F1EAF9", "band": "#D5DDE6", "band_2": "#B7C4D1",
    },
    "dark": {
        "bg": "#0A0D11", "surface": "#10151B", "sunken": "#06090C", "line": "#242D37", "line_strong": "#6B7886", "ink": "#D6DDE5", "ink_2": "#A6B1BD",
        "ink_3": "#8C98A5", "accent": "#74B3F2", "accent_ink": "#06182B", "accent_soft": "#10263C", "stop": "#FF8C78", "stop_soft": "#321713",
        "stop_line": "#7A352A", "watch": "#EDB84F", "watch_fill": "#EDB84F", "watch_soft": "#2A2110", "watch_line": "#6E5320", "machine": "#C6A8F3",
        "machine_soft": "#211934", "band": "#27323E", "band_2": "#3D4C5B",
    },
}  # fmt: skip


def stated(theme: str) -> dict[str, str]:
    block = re.search(rf'\[data-theme="{theme}"\] \{{(.*?)\}}', CSS, re.DOTALL)
    assert block is not None
    return dict(re.findall(r"--([\w-]+): (#[0-9A-Fa-f]{6})", block.group(1)))


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", TOKENS)
def test_the_tokens_are_those_of_the_design(theme: str) -> None:
    found = stated(theme)

    assert {k.replace("_", "-"): v for k, v in TOKENS[theme].items()} == {k: found[k.replace("_", "-")] for k in []} | {
        name.replace("_", "-"): found[name.replace("_", "-")] for name in TOKENS[theme]
    }


def test_no_colour_stands_outside_the_tokens() -> None:
    rest = re.sub(r"(:root|\[data-theme).*?\}", "", CSS, flags=re.DOTALL)

    assert set(re.findall(r"#[0-9A-Fa-f]{3,8}\b", rest)) <= {"#000"}  # the ground of pictures


@pytest.mark.parametrize("theme", TOKENS)
def test_text_can_be_read_on_every_ground_that_it_stands_on(theme: str) -> None:
    t = TOKENS[theme]
    pairs = [
        *itertools.product(("ink", "ink_2"), ("bg", "surface", "sunken", "accent_soft", "watch_soft", "stop_soft")),
        *itertools.product(("ink_3",), ("bg", "surface", "sunken", "accent_soft")), *itertools.product(("accent",), ("surface", "bg", "accent_soft")),
        ("accent_ink", "accent"), ("stop", "stop_soft"), ("watch", "watch_soft"), ("machine", "machine_soft"), ("surface", "stop"),
    ]  # fmt: skip
    assert [(a, b) for a, b in pairs if contrast(t[a], t[b]) < 4.5] == []


def test_scripts_stay_within_their_budget_and_nothing_is_fetched_from_elsewhere() -> None:
    scripts = list((FOLDER / "static").rglob("*.js"))
    viewer = {"viewer.js", "niivue.umd.js"}  # loaded where there are pictures of a head, and nowhere else
    loading = [p.parent.name for p in (FOLDER / "templates").rglob("*.html") if "viewer.js" in p.read_text("utf-8")]

    assert sum(p.stat().st_size for p in scripts if p.name not in viewer) <= 60 * 1024
    assert loading == ["measurements"]
    for file in [*scripts, FOLDER / "static" / "arcuate.css", *(FOLDER / "templates").rglob("*.html")]:
        if "vendor" not in file.parts:
            assert not re.search(r"(src|href|url\(|import)\W{1,3}https?://", file.read_text(encoding="utf-8")), file


def test_every_vendored_asset_has_its_licence_beside_it() -> None:
    static = FOLDER / "static"

    assert "Zero-Clause BSD" in (static / "vendor" / "htmx.LICENSE.txt").read_text(encoding="utf-8")
    assert "BSD 2-Clause" in (static / "vendor" / "niivue.LICENSE.txt").read_text(encoding="utf-8")
    assert "SIL Open Font License" in (static / "fonts" / "LICENSE.txt").read_text(encoding="utf-8")
    assert len(list((static / "fonts").glob("*.woff2"))) == 5


def test_templates_hold_no_inline_style_or_script() -> None:
    for file in (FOLDER / "templates").rglob("*.html"):
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"\sstyle=|\son[a-z]+=|<style|javascript:|\|\s*safe", text), file


def test_every_page_of_the_top_bar_has_keys_and_a_theme() -> None:
    pages, always = load_pages()

    assert all(p.keys for p in pages.values())
    assert {p.theme for p in pages.values()} == {"light", "dark"}
    assert pages["list"].theme == "dark"
    assert {"?", "/"} <= {cap for key in always for cap in key.caps}


PICTURES = {
    "range": lambda: charts.range_bar(14, 22, 38, 60, "waited 19 min", now=19),
    "ring": lambda: charts.due_ring(0.6, "look", "14 min left"),
    "spark": lambda: charts.spark([0, 3, 2] * 20, "messages a minute"),
    "stages": lambda: charts.stage_line([charts.Stop(f"Stage {i}", "done", "12:00", "5 min") for i in range(10)], "stands at signed"),
}  # fmt: skip


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_small_and_says_its_message(name: str) -> None:
    made = str(PICTURES[name]())

    assert len(made) < 4096
    assert 'role="img"' in made
    assert "aria-label=" in made
    assert "style=" not in made
    assert not re.search(r"#[0-9A-Fa-f]{3,8}\b|rgb\(", made)


def test_text_in_a_picture_is_escaped() -> None:
    made = str(charts.stage_line([charts.Stop("<b>", "done", '"><script>', "&")], '"><script>'))

    assert "<script>" not in made
    assert "<b>" not in made


def test_the_folder_of_the_room_is_found_from_anywhere() -> None:
    assert (Path(FOLDER) / "pages.toml").is_file()


def test_the_keyboard_can_scroll_whatever_scrolls() -> None:
    classes = {
        c
        for block in re.findall(r"([^{}]+)\{[^}]*overflow(?:-y)?: auto", CSS)
        for c in re.findall(r"^\s*\.([\w-]+)\s*$", block)
    }
    assert {"side", "scroll", "scroll-column"} <= classes
    found = []
    for path in sorted((FOLDER / "templates").rglob("*.html")):
        for tag in re.findall(r"<(?:div|section|ul|ol)\b[^>]*>", path.read_text(encoding="utf-8")):
            named = re.search(r'class="([^"]*)"', tag)
            if ("data-scroll" in tag or (named and classes & set(named[1].split()))) and not (
                'tabindex="0"' in tag and "aria-label=" in tag and 'role="region"' in tag
            ):
                found.append(f"{path.name}: {tag}")

    assert found == []
