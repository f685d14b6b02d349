"""Settings of the access room."""

from typing import Annotated

from arcuate.kernel.settings import RoomSettings, room_config


class AccessSettings(RoomSettings):
    """How people and clients enter."""

    model_config = room_config("access")

    link_hours: Annotated[float, "Hours for which a one-time sign-in link works."] = 24.0
    session_hours: Annotated[float, "Hours after which a person signs in again."] = 12.0
    failures_allowed: Annotated[int, "Wrong passwords in a row before an account has to wait."] = 5
    wait_s: Annotated[float, "Seconds for which an account waits after too many wrong passwords."] = 60.0
    password_length: Annotated[int, "Shortest password that is taken."] = 12
