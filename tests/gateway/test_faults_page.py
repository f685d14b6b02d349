"""The page that says which fault is provoked by which test names only tests that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_test_that_the_page_names_exists() -> None:
    page = (ROOT / "docs" / "reference" / "faults.md").read_text("utf-8")
    named = [
        (path, test)
        for line in page.splitlines()
        for path, tests in re.findall(r"`(\S+\.py)`: ((?:`test_\w+`(?:, )?)+)", line)
        for test in re.findall(r"`(test_\w+)`", tests)
    ]
    assert len(named) > 100
    missing = [
        f"{path} {test}" for path, test in named
        if not re.search(rf"def {test}\(", (ROOT / "tests" / path).read_text("utf-8"))
    ]  # fmt: skip
    assert missing == []
