"""The synthetic scanner: makes an invented head for a case and sends it as a DICOM series over C-STORE."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE
from pynetdicom.association import Association

from arcuate.hospital.exams import SCANNERS
from arcuate.hospital.heads.render import render_t1
from arcuate.hospital.heads.series import StudyFacts, t1_series
from arcuate.hospital.heads.shape import sample_head
from arcuate.hospital.morning import Case
from arcuate.hospital.patients import ASSIGNER
from arcuate.kernel.errors import Unavailable

_TITLE = "SYNTH-SCANNER"
_TRIES = 3
_ANSWER_S = 15.0


@dataclass(frozen=True)
class Scan:
    """A series ready to be sent, and the volumes (mL) that are true for it."""

    accession: str
    slices: tuple[Dataset, ...]
    volumes: dict[str, float]


def scan(case: Case, began: datetime, zone: ZoneInfo) -> Scan:
    """Make the case's series; seconds of computing, no I/O.

    Raises:
        ValueError: The case has no head in its script.
    """
    if case.ventricles is None:
        raise ValueError(f"Case {case.key} has no images in its script")
    head = sample_head(case.head_seed, ventricles=case.ventricles)
    facts = study_facts(case, began.astimezone(zone))
    slices = tuple(t1_series(render_t1(head.labels, case.head_seed), facts))
    return Scan(case.accession, slices, dict(head.volumes))


def study_facts(case: Case, began: datetime) -> StudyFacts:
    """Return what the scanner's worklist told it about the case."""
    person = case.person
    return StudyFacts(
        patient_id=person.number,
        issuer=ASSIGNER,
        family=person.family,
        given=person.given,
        birth_date=person.birth.strftime("%Y%m%d"),
        sex=person.sex,
        age_years=person.age(began.date()),
        accession=case.accession,
        description=f"{case.exam_done.display} (synthetic)",
        station=case.scanner,
        tesla=next(s.tesla for s in SCANNERS if s.name == case.scanner),
        began=began,
        seed=case.accession,
    )


def send(done: Scan, host: str, port: int, called: str) -> int:
    """Send the series and return how many images were taken.

    An image without an answer is sent again on a new association, as scanners do (the same UID: twice without harm); pynetdicom
    3.0.4 loses an answer now and then when its threads are starved.

    Raises:
        Unavailable: No association, an image was refused, or not answered three times.
    """
    sent = 0
    for attempt in range(1, _TRIES + 1):
        taken, refused = _send_from(done.slices[sent:], host, port, called)
        sent += taken
        if sent == len(done.slices):
            return sent
        if refused or attempt == _TRIES:
            raise Unavailable(f"Image {sent + 1} was not taken ({refused or 'no answer'})", where=f"{host}:{port}")
    raise AssertionError("unreachable")


def _send_from(slices: Sequence[Dataset], host: str, port: int, called: str) -> tuple[int, str]:
    """Send over one association; returns how many images were taken, and the status of one that was refused."""
    entity = AE(ae_title=_TITLE)
    entity.add_requested_context(MRImageStorage, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    entity.acse_timeout = entity.network_timeout = 60
    entity.dimse_timeout = _ANSWER_S
    association = entity.associate(host, port, ae_title=called)
    if not association.is_established:
        raise Unavailable(
            "The image receiver took no association", where=f"{host}:{port}", todo="Is the imaging room running?"
        )
    try:
        for number, dataset in enumerate(slices):
            _settle(association)
            status = association.send_c_store(dataset)
            if not status:
                return number, ""
            if status.Status != 0x0000:
                return number, f"{status.Status:04X}"
        return len(slices), ""
    finally:
        if association.is_established:
            association.release()


def _settle(association: Association) -> None:
    """Wait until the association's own thread runs again after the last answer.

    pynetdicom 3.0.4 takes a stale sign that this thread is paused for a fresh one; the thread then takes the next answer away.
    """
    until = time.monotonic() + 1.0
    while association._is_paused and time.monotonic() < until:
        time.sleep(0.0005)
