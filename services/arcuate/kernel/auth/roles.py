"""Roles of people, clients and rooms."""

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What somebody is here for."""

    SCHEDULER = "scheduler"
    TECHNOLOGIST = "technologist"
    RADIOLOGIST = "radiologist"
    LEAD = "lead"
    INTEGRATION = "integration"
    QUALITY = "quality"
    ADMIN = "admin"
    ROOM = "room"


PEOPLE = (Role.SCHEDULER, Role.TECHNOLOGIST, Role.RADIOLOGIST, Role.LEAD, Role.INTEGRATION, Role.QUALITY, Role.ADMIN)
CLINICAL = (Role.SCHEDULER, Role.TECHNOLOGIST, Role.RADIOLOGIST, Role.LEAD)


@dataclass(frozen=True)
class Principal:
    """The caller as the token states it.

    Attributes:
        subject: Id of the person or client.
        roles: What the caller may act as.
        client: The client that holds the token (a room, a script); equals `subject` where no person stands behind it.
        name: Name of the person as colleagues know it, for receipts and audit.
    """

    subject: str
    roles: frozenset[Role]
    client: str
    name: str = ""

    @property
    def is_room(self) -> bool:
        """True for a room acting for itself, not for a person."""
        return Role.ROOM in self.roles

    def may(self, *roles: Role) -> bool:
        """Return whether one of the roles is held; rooms may do all that rooms may be asked."""
        return self.is_room or bool(self.roles.intersection(roles))
