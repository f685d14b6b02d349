"""Use cases of the scheduling room: a Bundle in, forecasts out."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, tzinfo

from arcuate.kernel.codes import Json
from arcuate.kernel.errors import BadInput, Refused
from arcuate.kernel.fhir import bundle as bundles
from arcuate.kernel.fhir.bundle import reference_id
from arcuate.scheduling.domain import Moment, Visit
from arcuate.scheduling.store import Times
from arcuate.scheduling.visits import instant, visit, was_booked

_OPEN = frozenset({"proposed", "pending", "booked", "arrived", "checked-in", "waitlist"})
_HERE = frozenset({"arrived", "checked-in"})


def asked_appointment(bundle: Json) -> Json:
    """Return the appointment that a question is about: the first of the Bundle.

    Raises:
        BadInput: There is none, or it lacks id, start or patient.
        Refused: It is no longer open.
    """
    appointments = bundles.of_type(bundle, "Appointment")
    if not appointments:
        raise BadInput(
            "The Bundle holds no Appointment", where="Bundle.entry.resource.ofType(Appointment)", code="required"
        )
    asked = appointments[0]
    if not asked.get("id"):
        raise BadInput(
            "The Appointment has no id, so no answer could refer to it", where="Appointment.id", code="required"
        )
    if asked.get("status") not in _OPEN:
        raise Refused(f"The appointment is no longer open: {asked.get('status')}", where="Appointment.status")
    if _patient_id(asked) is None:
        raise BadInput("The Appointment names no Patient", where="Appointment.participant", code="required")
    return asked


def attendance_moment(bundle: Json, now: datetime, zone: tzinfo) -> Moment:
    """Return what is known of the asked appointment and of the patient's other visits."""
    asked = asked_appointment(bundle)
    patient_id = _patient_id(asked)
    theirs = [a for a in bundles.of_type(bundle, "Appointment") if a is not asked and _patient_id(a) == patient_id]
    others = tuple(_visit(a, bundle) for a in theirs if a.get("start") and was_booked(a))
    return Moment(_visit(asked, bundle), now, others, zone)


def wait_moment(bundle: Json, now: datetime, zone: tzinfo, line: Mapping[str, Times]) -> Moment:
    """Return what is known of the asked appointment and of the other visits of that day and place.

    Args:
        line: Arrival, begin and end by appointment id, as far as the live line knows them.
    """
    asked = asked_appointment(bundle)
    mine = _with_times(_visit(asked, bundle), asked, line)
    found = []
    for other in bundles.of_type(bundle, "Appointment"):
        if other.get("id") == asked["id"] or not other.get("start") or not was_booked(other):
            continue
        theirs = _with_times(_visit(other, bundle), other, line)
        if theirs.place == mine.place and theirs.start.astimezone(zone).date() == mine.start.astimezone(zone).date():
            found.append(theirs)
    return Moment(mine, now, tuple(found), zone)


def appointment_ids(bundle: Json) -> list[str]:
    """Return the ids of all appointments of a Bundle."""
    return [str(a["id"]) for a in bundles.of_type(bundle, "Appointment") if a.get("id")]


def _visit(appointment: Json, bundle: Json) -> Visit:
    patient = bundles.find(bundle, f"Patient/{_patient_id(appointment)}")
    orders = (bundles.find(bundle, r) for r in appointment.get("basedOn", []))
    return visit(appointment, patient, next((o for o in orders if o is not None), None))


def _with_times(one: Visit, appointment: Json, line: Mapping[str, Times]) -> Visit:
    known = line.get(one.id, Times())
    changed = _changed(appointment)
    arrived, began, ended = known.arrived, known.began, known.ended
    status = appointment.get("status")
    if status in _HERE and arrived is None:
        arrived = changed
    if status == "fulfilled" and changed is not None:
        ended = ended or changed
        began = began or ended - timedelta(minutes=one.minutes or 30)
        arrived = arrived or began
    return replace(one, arrived=arrived, began=began, ended=ended)


def _changed(appointment: Json) -> datetime | None:
    text = (appointment.get("meta") or {}).get("lastUpdated")
    return instant(text, "Appointment.meta.lastUpdated") if text else None


def _patient_id(appointment: Json) -> str | None:
    actors: Sequence[Json] = [p.get("actor") or {} for p in appointment.get("participant", [])]
    return next((i for a in actors if (i := reference_id(a, "Patient"))), None)
