"""Who may do what: rooms everything, clinical people read, integration reads and writes, people change little (default is deny)."""

from collections.abc import Mapping

from arcuate.kernel.auth import Principal, Role
from arcuate.kernel.errors import Forbidden

READERS = (
    Role.SCHEDULER, Role.TECHNOLOGIST, Role.RADIOLOGIST, Role.LEAD, Role.INTEGRATION, Role.QUALITY, Role.ADMIN,
)  # fmt: skip
WRITERS = (Role.SCHEDULER, Role.TECHNOLOGIST, Role.RADIOLOGIST, Role.LEAD, Role.INTEGRATION, Role.ADMIN)
LOADERS = (Role.INTEGRATION, Role.ADMIN)
AUDITORS = (Role.QUALITY, Role.ADMIN)

# What people may write besides rooms and loaders; everything else is written by doors and rooms.
PEOPLE_WRITE: Mapping[str, tuple[Role, ...]] = {
    "Task": (Role.SCHEDULER, Role.TECHNOLOGIST, Role.RADIOLOGIST, Role.LEAD),
    "Appointment": (Role.SCHEDULER, Role.LEAD),
    "Observation": (Role.RADIOLOGIST,),  # a reader accepts, corrects or rejects a measured value
}


def check_write(principal: Principal, resource_type: str) -> None:
    """Refuse a write that the caller's roles do not cover.

    Raises:
        Forbidden: They do not.
    """
    if not principal.may(*LOADERS, *PEOPLE_WRITE.get(resource_type, ())):
        raise Forbidden(f"Your roles may not write {resource_type}", todo="Ask an administrator for the role.")


def check_delete(principal: Principal, resource_type: str) -> None:
    """Refuse a deletion by anybody but rooms and loaders.

    Raises:
        Forbidden: It is somebody else.
    """
    if not principal.may(*LOADERS):
        raise Forbidden(f"Your roles may not delete {resource_type}", todo="Ask an administrator for the role.")
