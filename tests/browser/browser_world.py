"""The invented department behind a real port, and people in front of a real Chromium."""

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import department
import uvicorn
from dashboard_world import Department, open_department
from playwright.async_api import Browser, Page, async_playwright
from playwright.async_api import TimeoutError as NeverCame

from arcuate.gateway.settings import Receiver
from arcuate.kernel import codes
from arcuate.kernel.auth import Role

# A part of the day is enough to fill the board: journey asks for every visit the rooms that do not run here.
_OTHERS = ("0403", "0404", "0407", "0410", "0421", "0424", "0426", "0430", "0434", "0435", "0436", "0444")
_LONGEST_S = 60.0  # a busy machine is no fault of the pages
WIDE, LOW = {"width": 1366, "height": 768}, {"width": 1366, "height": 640}
READ, HELD = "0402", "0423"
_AXE = (Path(__file__).parent / "vendor" / "axe.min.js").read_text(encoding="utf-8")
_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip

_CUT = """() => {
  const found = [], clips = (el) => ["hidden", "clip"].includes(getComputedStyle(el).overflowX);
  for (const el of document.querySelectorAll("h1, h2, h3, p, b, a, td, th, dt, dd, li, label, button, time, span, code")) {
    if (!el.textContent.trim() || el.closest(".hide, .skip, [hidden], dialog, .keys .hint") || !el.getClientRects().length) continue;
    const box = el.getBoundingClientRect();
    if (clips(el) && el.scrollWidth > el.clientWidth + 1) found.push("text: " + el.textContent.trim().slice(0, 60));
    for (let up = el.parentElement; up; up = up.parentElement) {
      if (["auto", "scroll"].includes(getComputedStyle(up).overflowY)) break;
      const frame = up === document.documentElement ? {left: 0, right: innerWidth, top: 0} : clips(up) ? up.getBoundingClientRect() : null;
      if (frame && (box.right > frame.right + 1 || box.left < frame.left - 1 || box.top < frame.top - 1)) {
        found.push("box: " + el.textContent.trim().slice(0, 60)); break;
      }
    }
  }
  return [...new Set(found)];
}"""

_IN_SIGHT = """css => {
  const el = document.querySelector(css), box = el && el.getBoundingClientRect();
  return !!box && box.height > 0 && box.top >= 0 && box.bottom <= innerHeight;
}"""

DRAFT = """EXAM
MRI brain without contrast
Accession SYN-26-0402

INDICATION, AS TYPED
> headache, worse since March; rule out mass

COMPARISON
- 17 Mar 2025: MRI brain

VOLUMES
Measured by machine from the images of this exam
Right hippocampus: 2.31 mL [1] (machine value, not reviewed)
Left hippocampus: 2.74 mL [1] (machine value, not reviewed)

FINDINGS
[Findings: to be dictated]

IMPRESSION
[Impression: to be dictated]
"""
VOLUMES = {
    ("hippocampus", "right"): 2.31, ("hippocampus", "left"): 2.74, ("lateral-ventricle", "right"): 14.2, ("lateral-ventricle", "left"): 16.9,
    ("third-ventricle", ""): 1.2, ("brainstem", ""): 21.4, ("amygdala", "right"): 1.31, ("amygdala", "left"): 1.29,
}  # fmt: skip


def order_message(number: str, *, born: str = "19710211", exam: str = "MRIAC2^MRI internal auditory canals^L") -> bytes:
    """Return an order as a RIS sends it."""
    return (
        f"MSH|^~\\&|RIS|NG|ARCUATE|NG|20260317131604||ORM^O01|7{number}|P|2.3.1\r"
        f"PID|1||SYN{number}^^^NG^MR||DOE-{number}^TEST||{born}|F\r"
        f"PV1|1|O|NEURO^^^NG\rORC|NW|P-{number}|SYN-26-{number}\rOBR|1|P-{number}|SYN-26-{number}|{exam}\r"
    ).encode()


def report_message(number: str) -> bytes:
    """Return a signed report of an order that nobody has heard of."""
    return (
        f"MSH|^~\\&|DICTATION|NG|ARCUATE|NG|20260317131704||ORU^R01|8{number}|P|2.3.1\r"
        f"PID|1||SYN{number}^^^NG^MR||DOE-{number}^TEST||19710211|F\r"
        f"OBR|1|P-{number}|SYN-26-{number}|MRIAC2^MRI internal auditory canals^L|||20260317120000||||||||||||||||||F\r"
        "OBX|1|TX|IMP^Impression||Normal study.||||||F\r"
    ).encode()


@dataclass
class Screen:
    """One person's window, and what the browser complained about."""

    page: Page
    address: str
    complaints: list[str] = field(default_factory=list)

    def hear(self, kind: str, text: str) -> None:
        """Keep what the browser complains about; a question taken back because somebody went on is no complaint."""
        if kind in ("error", "warning") and not text.startswith(("htmx:afterRequest", "htmx:sendAbort")):
            self.complaints.append(text)

    async def open(self, path: str) -> None:
        """Open a page and wait until its scripts have begun."""
        await self.page.goto(self.address + path, wait_until="load")

    async def findings(self) -> list[str]:
        """Return what axe finds: rule, element, and why."""
        await self.page.evaluate(_AXE)
        found = await self.page.evaluate("rules => axe.run(document, {runOnly: rules})", _RULES)
        return [
            f"{v['id']}: {n['html'][:120]} ({n['failureSummary'][:200]})"
            for v in found["violations"]
            for n in v["nodes"]
        ]

    async def beyond(self) -> list[str]:
        """Return why the page as a whole could be scrolled, sideways or down, or an empty list."""
        sizes: dict[str, float] = await self.page.evaluate(
            "() => ({w: document.documentElement.scrollWidth - innerWidth, h: document.documentElement.scrollHeight - innerHeight})"
        )
        return [name for name, over in sizes.items() if over > 0]

    async def cut(self) -> list[str]:
        """Return what is cut off: text that reaches out of its box where no scrolling brings it back, or out of the window."""
        found: list[str] = await self.page.evaluate(_CUT)
        return found

    async def in_sight(self, css: str) -> bool:
        """Return whether an element stands whole inside the window, or does so once the page has come to rest."""
        try:
            await self.page.wait_for_function(_IN_SIGHT, arg=css, timeout=5_000)
        except NeverCame:
            return False
        return True

    async def focused(self) -> str:
        """Return the id or text of the element that has the focus."""
        found: str = await self.page.evaluate(
            "() => document.activeElement.id || document.activeElement.textContent.trim()"
        )
        return found

    async def focus_is_seen(self) -> bool:
        """Return whether the element with the focus has an outline, or its field has."""
        seen: bool = await self.page.evaluate(
            "() => { const el = document.activeElement, ring = (e) => e && getComputedStyle(e).outlineStyle !== 'none'"
            " && parseFloat(getComputedStyle(e).outlineWidth) >= 2; return !!(ring(el) || ring(el.closest('form'))); }"
        )
        return seen


@dataclass
class Theatre:
    """A house on a port, and a browser."""

    house: Department
    browser: Browser
    address: str
    case: str = ""
    held: str = ""
    parked: str = ""

    @contextlib.asynccontextmanager
    async def screen(
        self, name: str = "", *roles: Role, size: dict[str, int] | None = None, script: bool = True
    ) -> AsyncIterator[Screen]:
        """Open a window in which a person has signed in by a one-time link; nobody has where no name is given."""
        context = await self.browser.new_context(
            viewport=size or WIDE,  # type: ignore[arg-type]
            java_script_enabled=script,
            reduced_motion="reduce",
        )
        context.set_default_timeout(30_000)
        made = Screen(await context.new_page(), self.address)
        made.page.on("console", lambda m: made.hear(m.type, m.text))
        made.page.on("pageerror", lambda e: made.complaints.append(str(e)))
        made.page.on(
            "requestfinished",
            lambda r: None if r.url.startswith(self.address) else made.complaints.append(f"asked {r.url}"),
        )
        try:
            if name:
                await made.open(f"/sign-in?token={await self.house.link(name, *roles)}")
                await made.page.get_by_role("button", name="Sign in with this link").click()
                await made.page.wait_for_url(lambda url: "/sign-in" not in url)
            yield made
        finally:
            await context.close()


@contextlib.asynccontextmanager
async def on_a_port(made: Department) -> AsyncIterator[str]:
    """Serve the house's web app on a free port of this machine."""
    config = uvicorn.Config(
        made.house.app, port=0, log_level="error", lifespan="off", ws="none", timeout_graceful_shutdown=2
    )
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving


@contextlib.asynccontextmanager
async def theatre(folder: Path, chromium: str) -> AsyncIterator[Theatre]:
    """Open the invented day at 13:42 with one case ready to read, one held, messages parked and a receiver that is down."""
    down = Receiver(name="dictation", kind="dictation", host="127.0.0.1", port=9)
    async with (
        open_department(folder, receivers=(down,)) as made,
        on_a_port(made) as address,
        async_playwright() as player,
    ):
        browser = await player.chromium.launch(executable_path=chromium, args=list(_FLAGS))
        try:
            found = Theatre(made, browser, address)
            await _fill(found)
            yield found
        finally:
            await browser.close()


async def _fill(found: Theatre) -> None:
    made = found.house
    await made.fhir.transaction(department.roster())
    first = tuple(v for v in department.DAY if v.number in (READ, HELD))
    await made.fhir.transaction(department.day(first))
    said = {**department.patient("0999"), "name": [{"family": "Else"}], "birthDate": "1950-01-01"}
    await made.fhir.create(department.study(HELD, said=said))
    ledger = await made.settled(lambda rows: bool(rows.get(f"SYN-26-{HELD}", {}).get("held")), _LONGEST_S)
    await _given(made)
    await _read_case(made)
    found.case, found.held = str(ledger[f"SYN-26-{READ}"]["id"]), str(ledger[f"SYN-26-{HELD}"]["id"])
    rest = tuple(v for v in department.DAY if v.number in _OTHERS)
    await made.fhir.transaction(department.day(rest))
    await made.send(
        order_message("0455", born="19710231"), order_message("0456", born="1971-02-11x"), report_message("0999"),
        order_message("0460"),
    )  # fmt: skip
    await made.fhir.transaction(department.ahead("0601", 1, 0.41, "missed 2 of the last 3 visits"))
    await made.fhir.transaction(department.ahead("0602", 2, 0.12, "booked 20 days ago"))
    found.parked = await _parked(made)


async def _parked(made: Department) -> str:
    """Return the id of the first parked message once all three stand in the error queue."""
    async with asyncio.timeout(_LONGEST_S):
        while True:
            items = (await made.rooms_http.get("/gateway/errors")).json()["items"]
            if len(items) == 3:
                return str(items[-1]["id"])
            await asyncio.sleep(0.05)


async def _given(made: Department) -> None:
    """Wait until the case that is to be read has its reader; imaging does not run here, so its images come afterwards."""
    order = await _order(made)
    async with asyncio.timeout(_LONGEST_S):
        while not any(
            t.get("owner") for t in await made.fhir.search("Task", {"focus": f"ServiceRequest/{order['id']}"})
        ):
            await asyncio.sleep(0.05)


async def _order(made: Department) -> dict[str, Any]:
    found = await made.fhir.search("ServiceRequest", {"identifier": f"{codes.SYSTEM_ACCESSION}|SYN-26-{READ}"})
    return found[0]


async def _read_case(made: Department) -> None:
    """Give one case what the specialist rooms would: images, volumes, a draft, an earlier report."""
    found = await _order(made)
    order, subject = codes.reference("ServiceRequest", found["id"]), found["subject"]
    images = await made.fhir.create(department.study(READ, request=order, subject=subject))
    study = codes.reference("ImagingStudy", images["id"])
    values = [
        await made.fhir.create(one) for one in department.measurements(order, subject, study, VOLUMES)
    ]  # fmt: skip
    text = {"contentType": "text/plain", "data": base64.b64encode(DRAFT.encode()).decode()}
    await made.fhir.create({
        "resourceType": "DiagnosticReport", "status": "preliminary", "subject": subject, "basedOn": [order], "code": {"text": "MRI brain"},
        "identifier": [{"system": "urn:arcuate:id:report:draft", "value": f"SYN-26-{READ}"}], "presentedForm": [text],
        "issued": department.stamp(department.NOW), "result": [codes.reference("Observation", v["id"]) for v in values],
    })  # fmt: skip
    await made.fhir.create({
        "resourceType": "DiagnosticReport", "status": "final", "subject": subject, "code": {"text": "MRI brain"},
        "issued": department.stamp(department.NOW - timedelta(days=365)), "resultsInterpreter": [{"display": department.READER}],
    })  # fmt: skip


async def settle(screen: Screen) -> None:
    """Wait until the page has loaded its letters, so that sizes are those that people see."""
    await screen.page.evaluate("() => document.fonts.ready.then(() => true)")
