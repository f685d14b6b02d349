"""Task (what is asked of the RIS) to SRM^S01, S02 and S04 (HL7 v2.5.1 chapter 10.3.1, 10.3.2, 10.3.4): a request, not a change.

Read from the Task: `code` (urn:arcuate:cs:ask: book, reschedule, cancel), `focus` the Appointment, `description` the reason in words,
`input` with `type.text` "start" or "end" and a `valueDateTime` the wished time, `requester.display` who asks.
"""

from collections.abc import Sequence
from zoneinfo import ZoneInfo

from arcuate.gateway.outgoing import oru
from arcuate.kernel import codes
from arcuate.kernel.errors import Json
from arcuate.kernel.hl7v2 import build, timestamps
from arcuate.kernel.hl7v2.build import Value, segment

EVENTS = {"book": "S01", "reschedule": "S02", "cancel": "S04"}
_REASON = {"book": "Book", "reschedule": "Reschedule", "cancel": "Cancel"}
_ACTION = {"book": "A", "reschedule": "U", "cancel": "D"}


def asked(task: Json) -> str:
    """Return what is asked (`book`, `reschedule`, `cancel`), or the empty string when the Task asks nothing of the RIS."""
    codings = (task.get("code") or {}).get("coding") or []
    return next(
        (str(one["code"]) for one in codings if one.get("system") == codes.CS_ASK and one.get("code") in EVENTS), ""
    )


def message(
    envelope: build.Envelope, task: Json, appointment: Json, patient: Json, zone: ZoneInfo, order: Json | None = None,
    places: Sequence[Json] = (),
) -> bytes:  # fmt: skip
    """Return the request; `order` is what the appointment is for, `places` are its Locations."""
    kind = asked(task)
    fields: dict[int, Value] = {
        1: appointment_number(appointment, "PLAC"),
        2: appointment_number(appointment, "FILL"),
        6: ("", _REASON[kind]),
        7: ("", str(task.get("description") or "")),
        15: ("", *_who(task)),
        19: ("", *_who(task)),
    }
    if not any(part for part in fields[1]):
        fields[1] = fields[2]
    if order is not None:
        placer, filler, _ = oru.numbers(order)
        fields |= {24: placer, 25: filler}
    times = [_wished(task, name, zone) for name in ("start", "end")]
    if any(times):
        fields[11] = tuple(times)
    service = next(iter(appointment.get("serviceType", [])), {"text": "Imaging"})
    ais: dict[int, Value] = {1: "1", 2: _ACTION[kind], 3: oru.coded(service)}
    if start := appointment.get("start"):
        ais[4] = oru.time_of(str(start))
    rooms = [
        segment("AIL", {1: str(place), 2: _ACTION[kind], 3: oru.place(one)}) for place, one in enumerate(places, 1)
    ]
    return build.message(
        envelope, [segment("ARQ", fields), oru.pid(patient), segment("RGS", {1: "1"}), segment("AIS", ais), *rooms]
    )


def appointment_number(appointment: Json, kind: str) -> tuple[build.Component, ...]:
    """Return the EI of an appointment's placer (`PLAC`) or filler (`FILL`) number, empty where it has none."""
    for one in appointment.get("identifier", []):
        codings = (one.get("type") or {}).get("coding", [])
        if any(coding.get("code") == kind for coding in codings):
            return (str(one.get("value", "")), *oru.authority(str(one.get("system", ""))))
    return ("",)


def _who(task: Json) -> tuple[str, ...]:
    words = str((task.get("requester") or {}).get("display") or "Arcuate").split()
    return (words[-1], " ".join(words[:-1]))


def _wished(task: Json, name: str, zone: ZoneInfo) -> str:
    for one in task.get("input", []):
        if (one.get("type") or {}).get("text") == name and one.get("valueDateTime"):
            moment = timestamps.parse(str(one["valueDateTime"]), zone)
            return timestamps.write(moment.instant, zone) if moment.instant else timestamps.write_date(moment.date)
    return ""
