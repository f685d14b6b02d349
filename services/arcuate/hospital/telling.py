"""What the hospital says about a step: the messages that a RIS would send, and a plain sentence for people."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from arcuate.hospital.messages import Writer
from arcuate.hospital.morning import Kind, Step


@dataclass(frozen=True)
class Said:
    """The messages of one step, in order, and the sentence (empty: not worth one)."""

    messages: tuple[bytes, ...]
    words: str = ""


Teller = Callable[[Step, datetime, Writer], Said]


def tell(step: Step, slot: datetime, writer: Writer) -> Said:
    """Return what is said about a step; `slot` is where the booking stands now. Images are not said here.

    Raises:
        KeyError: The step is `images`.
    """
    return _TELLERS[step.kind](step, slot, writer)


def _hour(moment: datetime, writer: Writer) -> str:
    return moment.astimezone(writer.zone).strftime("%H:%M")


def _register(step: Step, slot: datetime, writer: Writer) -> Said:
    return Said((writer.register(step.case, step.at),))


def _order(step: Step, slot: datetime, writer: Writer) -> Said:
    return Said(
        (writer.order(step.case, step.at),), f'is referred for {step.case.exam.display}: "{step.case.indication}"'
    )


def _book(step: Step, slot: datetime, writer: Writer) -> Said:
    first = step.case.first_slot or slot
    words = f"is booked for {_hour(first, writer)} on {step.case.scanner}"
    return Said((writer.booking("S12", step.case, step.at, first),), words)


def _change(step: Step, slot: datetime, writer: Writer) -> Said:
    order = writer.order(step.case, step.at, control="XO", exam=step.case.exam_done)
    booking = writer.booking("S14", step.case, step.at, slot)
    return Said((order, booking), f"the referrer corrects the order to {step.case.exam_done.display}")


def _move(step: Step, slot: datetime, writer: Writer) -> Said:
    return Said((writer.booking("S13", step.case, step.at, slot),), f"is moved to {_hour(slot, writer)}")


def _laboratory(step: Step, slot: datetime, writer: Writer) -> Said:
    value = step.case.egfr or 0.0
    return Said((writer.laboratory(step.case, step.at, value),), f"the laboratory reports an eGFR of {value:g}")


def _cancel_booking(step: Step, slot: datetime, writer: Writer) -> Said:
    return Said((writer.booking("S15", step.case, step.at, slot, status="Cancelled"),), "cancels the appointment, late")


def _cancel_order(step: Step, slot: datetime, writer: Writer) -> Said:
    return Said((writer.order(step.case, step.at, control="CA", state="CA"),), "the order is cancelled")


def _no_show(step: Step, slot: datetime, writer: Writer) -> Said:
    return Said((writer.booking("S26", step.case, step.at, slot, status="Noshow"),), "did not come")


def _arrive(step: Step, slot: datetime, writer: Writer) -> Said:
    booking = writer.booking("S14", step.case, step.at, slot, status="Arrived")
    return Said((writer.arrive(step.case, step.at), booking), "is here")


def _begin(step: Step, slot: datetime, writer: Writer) -> Said:
    order = writer.order(step.case, step.at, control="SC", state="IP", exam=step.case.exam_done)
    return Said((order,), f"goes onto the table of {step.case.scanner}")


def _done(step: Step, slot: datetime, writer: Writer) -> Said:
    order = writer.order(step.case, step.at, control="SC", state="CM", exam=step.case.exam_done)
    return Said((order, writer.booking("S14", step.case, step.at, slot, status="Complete")), "is done")


_TELLERS: Mapping[Kind, Teller] = {
    Kind.REGISTER: _register,
    Kind.ORDER: _order,
    Kind.BOOK: _book,
    Kind.CHANGE: _change,
    Kind.MOVE: _move,
    Kind.LABORATORY: _laboratory,
    Kind.CANCEL_BOOKING: _cancel_booking,
    Kind.CANCEL_ORDER: _cancel_order,
    Kind.NO_SHOW: _no_show,
    Kind.ARRIVE: _arrive,
    Kind.BEGIN: _begin,
    Kind.DONE: _done,
}
