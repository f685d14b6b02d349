"""Plays a morning through the doors of a house: HL7 over MLLP, images over C-STORE, roster and priors over FHIR.

What lies before the morning's `made_at` is told in a hurry (`Pace.past_s`), what lies after it in real time (`Pace.live`). Reports
are signed when their drafts come; requests of the house's pages to the RIS are answered and confirmed.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import httpx

from arcuate.hospital import dictation, scanner
from arcuate.hospital.desks import Desks
from arcuate.hospital.messages import Writer
from arcuate.hospital.morning import Case, Kind, Morning, Step
from arcuate.hospital.priors import past_entries
from arcuate.hospital.readers import roster_entries
from arcuate.hospital.telling import tell
from arcuate.kernel.clock import Clock
from arcuate.kernel.codes import identifier, job_system
from arcuate.kernel.errors import BadInput, Refused, Unavailable
from arcuate.kernel.fhir import bundle
from arcuate.kernel.fhir.client import FhirClient
from arcuate.kernel.hl7v2 import ack, timestamps
from arcuate.kernel.hl7v2.message import Message
from arcuate.kernel.hl7v2.mllp import MllpClient

Say = Callable[[str], None]

_TAKEN = ("AA", "CA")
_LATER = timedelta(minutes=30)
_LOOK_S = 0.5
_TRIES = 3
_AGAIN_S = 1.0


@dataclass(frozen=True)
class Doors:
    """Addresses of a house, and the hospital's own listeners (opened first, so that the house can be told their ports)."""

    mllp: tuple[str, int]
    dicom: tuple[str, int]
    fhir_base: str  # e.g. http://127.0.0.1:8080/fhir
    token: str  # bearer token of role integration
    desks: Desks
    dicom_title: str = "ARCUATE"


@dataclass(frozen=True)
class Pace:
    """How fast a morning is told.

    Attributes:
        past_s: Seconds for what lies before now.
        reading_s: Seconds from a draft to its signature.
        measuring_s: Seconds for which a reader waits for measurements of images that were sent.
        patience_s: Seconds for which a reader waits for images, and the end of a play for the last signature.
        live: True: what lies after now follows in real time, until the caller cancels; False: it is left out.
    """

    past_s: float = 45.0
    reading_s: float = 6.0
    measuring_s: float = 120.0
    patience_s: float = 240.0
    live: bool = True


@dataclass
class Told:
    """What was told so far; for the summary.

    Attributes:
        signed: Accession numbers of the reports that the synthetic readers signed.
        true_volumes: Volumes in mL that are true for the invented heads, by accession number.
    """

    messages: int = 0
    images: int = 0
    signed: list[str] = field(default_factory=list)
    true_volumes: dict[str, dict[str, float]] = field(default_factory=dict)


REAL_TIME = Pace()
"""The pace of a demo that stays open."""

IN_A_HURRY = Pace(past_s=40.0, reading_s=2.0, measuring_s=180.0, patience_s=420.0, live=False)
"""The pace of a demo that ends by itself."""


async def play(
    morning: Morning, doors: Doors, clock: Clock, say: Say, *, pace: Pace = REAL_TIME, told: Told | None = None
) -> Told:
    """Play the morning.

    Without a live part it returns when every scripted report is signed, or `pace.patience_s` is over; with one it goes on
    (answering drafts and requests) until it is cancelled. `told` may be given to look at while it plays.

    Raises:
        Unavailable: A door does not answer.
        Refused: The HL7 door does not take what the hospital sends.
    """
    told = told or Told()
    try:
        async with MllpClient(*doors.mllp) as ris, MllpClient(*doors.mllp) as reports, asyncio.TaskGroup() as tasks:
            player = _Player(morning, doors, clock, say, pace, told, _Wires(ris, reports), tasks)
            await player.load()
            await player.listen()
            await player.past()
            if pace.live:
                await player.live()
                await asyncio.Event().wait()
            await player.until_signed()
    except BaseExceptionGroup as group:
        raise _first(group) from group
    return told


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return what went wrong first: callers handle the house's errors, not groups of them."""
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


@dataclass(frozen=True)
class _Wires:
    ris: MllpClient
    dictation: MllpClient


class _Player:
    def __init__(
        self, morning: Morning, doors: Doors, clock: Clock, say: Say, pace: Pace, told: Told, wires: _Wires, tasks: asyncio.TaskGroup
    ) -> None:  # fmt: skip
        self.told = told
        self._morning, self._doors, self._clock, self._say, self._pace = morning, doors, clock, say, pace
        self._wires, self._tasks = wires, tasks
        self._writer = Writer(morning.zone)
        self._by_accession = {case.accession: case for case in morning.cases}
        self._by_appointment = {case.appointment: case for case in morning.cases}
        self._words = dictation.load_words()
        self._drafts: dict[str, dictation.Draft] = {}
        self._gone: set[str] = set()  # cases whose booking was cancelled at our pages' wish
        self._slots = {case.key: case.slot for case in morning.cases}
        self._scanning = asyncio.Semaphore(1)

    async def load(self) -> None:
        """Post the roster, and what lies behind the patients."""
        headers = {"Authorization": f"Bearer {self._doors.token}"}
        stamp = self._morning.made_at.isoformat()
        async with httpx.AsyncClient(headers=headers) as http:
            fhir = FhirClient(http, self._doors.fhir_base, self._clock)
            for name, entries in (
                ("roster", roster_entries(self._morning.readers)),
                ("past", past_entries(self._morning.cases)),
            ):
                await fhir.transaction(
                    bundle.transaction(entries, identifier(job_system("hospital"), f"{name}-{stamp}"))
                )
        self._tell(None, f"{len(self._morning.readers)} readers, earlier visits and earlier reports: posted over FHIR")

    async def listen(self) -> None:
        """Begin to take drafts, signed reports and requests."""
        await self._doors.desks.dictation.attach(self._take_draft)
        await self._doors.desks.ris.attach(self._take_at_ris)
        await self._doors.desks.report.attach(self._take_report)

    async def past(self) -> None:
        """Tell what lies before now: the RIS's open orders at once, then the morning."""
        opens = self._morning.doors_open
        past = [step for step in self._morning.steps if step.at <= self._morning.made_at]
        before = [step for step in past if step.at < opens]
        for step in before:
            await self._do(step, aloud=False)
        self._tell(
            None, f"{sum(s.kind is Kind.ORDER for s in before)} open orders and bookings: loaded from the RIS over HL7"
        )
        began = self._clock.monotonic()
        span = (self._morning.made_at - opens).total_seconds()
        for step in past[len(before) :]:
            due = began + self._pace.past_s * (step.at - opens).total_seconds() / span
            await self._clock.sleep(max(0.0, due - self._clock.monotonic()))
            await self._do(step)

    async def live(self) -> None:
        """Tell what lies after now as it happens."""
        for step in [step for step in self._morning.steps if step.at > self._morning.made_at]:
            await self._clock.sleep(max(0.0, (step.at - self._clock.now()).total_seconds()))
            await self._do(step)

    async def until_signed(self) -> None:
        """Wait until every scripted report is signed, or patience is over."""
        wanted = {case.accession for case in self._morning.cases if case.end == "delivered"}
        until = self._clock.monotonic() + self._pace.patience_s
        while (missing := wanted - set(self.told.signed)) and self._clock.monotonic() < until:
            await self._clock.sleep(_LOOK_S)
        if missing:
            self._tell(
                self._clock.now(), f"no draft came for {len(missing)} scripted cases: {', '.join(sorted(missing))}"
            )

    async def _do(self, step: Step, *, aloud: bool = True) -> None:
        if step.case.key in self._gone:
            return
        if step.kind is Kind.IMAGES:
            self._tasks.create_task(self._scan(step.case, step.at))
            return
        said = tell(step, self._slots[step.case.key], self._writer)
        for raw in said.messages:
            await self._send(self._wires.ris, raw)
        if aloud and said.words:
            self._tell(step.at, f"{_name(step.case)} {said.words}")

    async def _send(self, wire: MllpClient, raw: bytes) -> None:
        """Send one message; without an answer in time it is sent again, the same bytes, as a RIS does."""
        for attempt in range(1, _TRIES + 1):
            try:
                answer = ack.read(await wire.send(raw))
                break
            except Unavailable:
                if attempt == _TRIES:
                    raise
                await self._clock.sleep(_AGAIN_S)
        self.told.messages += 1
        if answer is None or answer.code not in _TAKEN:
            code = answer.code if answer else "no MSA"
            raise Refused(f"The HL7 door answered {code} to the synthetic hospital", todo="See its error queue.")

    async def _scan(self, case: Case, at: datetime) -> None:
        host, port = self._doors.dicom
        async with self._scanning:
            made = await asyncio.to_thread(scanner.scan, case, at, self._morning.zone)
            count = await asyncio.to_thread(scanner.send, made, host, port, self._doors.dicom_title)
        self.told.true_volumes[case.accession] = made.volumes
        self.told.images += count
        self._tell(at, f"{_name(case)}: {count} images of an invented head sent from {case.scanner} over DICOM")

    async def _take_draft(self, raw: bytes) -> None:
        draft = dictation.read_draft(raw, self._by_accession)
        if draft is None or draft.accession in self.told.signed:
            return
        case = self._by_accession[draft.accession]
        first = draft.accession not in self._drafts
        self._drafts[draft.accession] = draft
        word = "a draft" if first else "a revised draft"
        self._tell(self._clock.now(), f"{_name(case)}: {word} of {len(draft.lines)} lines is in the dictation system")
        if first and case.end == "delivered":
            self._tasks.create_task(self._sign(case))

    async def _sign(self, case: Case) -> None:
        if case.ventricles is not None:
            await self._measured(case)
        await self._clock.sleep(self._pace.reading_s)
        draft = self._drafts[case.accession]
        self.told.signed.append(case.accession)
        reader = draft.reader or next(r.name for r in self._morning.readers if not r.trainee)
        lines = dictation.completed(draft, self._words)
        words = dictation.impression(self._words, case, self._morning.seed)
        now = self._clock.now()
        await self._send(self._wires.dictation, self._writer.final_report(case, now, lines, words, reader))
        self._tell(now, f"{_name(case)}: {reader} signs the report")

    async def _measured(self, case: Case) -> None:
        """Wait for images, then for a draft with measurements: a reader who knows that both are coming does not sign before."""
        until = self._clock.monotonic() + self._pace.patience_s
        while case.accession not in self.told.true_volumes and self._clock.monotonic() < until:
            await self._clock.sleep(_LOOK_S)
        until = self._clock.monotonic() + self._pace.measuring_s
        while self._clock.monotonic() < until and not self._drafts[case.accession].measured:
            await self._clock.sleep(_LOOK_S)

    async def _take_report(self, raw: bytes) -> None:
        obr = Message.parse(raw).first("OBR")
        number = (obr[18].component(1) or obr[3].component(1)) if obr is not None else ""
        if case := self._by_accession.get(number):
            self._tell(self._clock.now(), f"{_name(case)}: the signed report is at its receiver")

    async def _take_at_ris(self, raw: bytes) -> None:
        """Confirm what the house asks of the RIS (SRM^S01 books, S02 moves, S04 cancels); reports are only filed."""
        message = Message.parse(raw)
        msh, arq = message.first("MSH"), message.first("ARQ")
        if msh is None or arq is None or msh[9].component(1) != "SRM":
            return
        numbers = [arq[n].component(1).removeprefix("P") for n in (2, 1)]
        case = next((self._by_appointment[n] for n in numbers if n in self._by_appointment), None)
        case = case or self._by_accession.get(arq[25].component(1))
        if case is not None:
            placer = (arq[1].component(1), arq[1].component(2))
            self._tasks.create_task(self._confirm(case, msh[9].component(2), arq[11].component(1), placer))

    async def _confirm(self, case: Case, event: str, wanted: str, placer: tuple[str, str]) -> None:
        await self._clock.sleep(min(4.0, self._pace.reading_s))
        now, slot = self._clock.now(), self._slots[case.key]
        if event == "S04":
            self._gone.add(case.key)
            await self._send(self._wires.ris, self._writer.booking("S15", case, now, slot, status="Cancelled"))
            self._tell(now, f"{_name(case)}: the RIS has cancelled the appointment, as asked")
        elif event == "S02":
            slot = self._slots[case.key] = self._asked_for(wanted) or slot + _LATER
            await self._send(self._wires.ris, self._writer.booking("S13", case, now, slot))
            self._tell(now, f"{_name(case)}: the RIS has moved the appointment to {self._hour(slot)}, as asked")

        elif event == "S01":
            slot = self._slots[case.key] = self._asked_for(wanted) or slot
            await self._send(self._wires.ris, self._writer.booking("S12", case, now, slot, asked_as=placer))
            self._tell(now, f"{_name(case)}: the RIS has booked {self._hour(slot)}, as asked")

    def _asked_for(self, text: str) -> datetime | None:
        with contextlib.suppress(BadInput):
            return timestamps.parse(text, self._morning.zone, "ARQ-11").instant if text.strip() else None
        return None

    def _hour(self, moment: datetime) -> str:
        return moment.astimezone(self._morning.zone).strftime("%H:%M")

    def _tell(self, at: datetime | None, words: str) -> None:
        self._say(f"{self._hour(at) if at else '     '}  {words}")


def _name(case: Case) -> str:
    return f"{case.person.family} ({case.accession})"
