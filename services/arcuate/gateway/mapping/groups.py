"""Order groups of a message: ORC, OBR and what belongs to them (ORM_O01, OMI_O23, OMG_O19, ORU_R01)."""

from dataclasses import dataclass, field

from arcuate.kernel.hl7v2.message import Message, Segment

_PATIENT = frozenset(
    ("PID", "PD1", "PV1", "PV2", "NK1", "IN1", "IN2", "IN3", "GT1", "AL1", "MRG", "EVN", "MSH", "SFT", "MSA")
)


@dataclass
class Group:
    """One order: its ORC, its OBR and the segments behind them, in the order of the message."""

    segments: list[Segment] = field(default_factory=list)

    def first(self, id: str) -> Segment | None:
        """Return the first segment of that id."""
        return next((segment for segment in self.segments if segment.id == id), None)

    def all(self, id: str) -> list[Segment]:
        """Return all segments of that id."""
        return [segment for segment in self.segments if segment.id == id]

    @property
    def is_other_order(self) -> bool:
        """A pharmacy, diet or supply order: not for imaging."""
        return self.first("OBR") is None and any(self.first(id) for id in ("RXO", "RXE", "RQD", "RQ1", "ODS", "ODT"))


@dataclass
class PatientGroup:
    """One PID with its visit and its orders; ORU can hold several (row 025)."""

    pid: Segment | None
    segments: list[Segment] = field(default_factory=list)
    orders: list[Group] = field(default_factory=list)

    def first(self, id: str) -> Segment | None:
        """Return the first segment of that id outside the orders."""
        return next((segment for segment in self.segments if segment.id == id), None)


def patient_groups(message: Message) -> list[PatientGroup]:
    """Return the message by patients; segments before the first PID belong to the first patient."""
    groups = [PatientGroup(None)]
    for segment in message:
        if segment.id == "PID":
            if groups[-1].pid is not None:
                groups.append(PatientGroup(None))
            groups[-1].pid = segment
        elif segment.id in _PATIENT:
            groups[-1].segments.append(segment)
        else:
            _add(groups[-1], segment)
    return groups


def _add(group: PatientGroup, segment: Segment) -> None:
    orders = group.orders
    if segment.id == "ORC" or (segment.id == "OBR" and (not orders or orders[-1].first("OBR") is not None)):
        orders.append(Group())
    if orders:
        orders[-1].segments.append(segment)
    else:
        group.segments.append(segment)
