"""Settings of the reporting room."""

from typing import Annotated

from arcuate.kernel.settings import RoomSettings, room_config


class ReportingSettings(RoomSettings):
    """How long drafts are kept here; the record keeps its own versions."""

    model_config = room_config("reporting")

    keep_days: Annotated[int, "Days for which the versions of a draft are kept in this room."] = 730
