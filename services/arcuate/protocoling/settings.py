"""Settings of the protocoling room."""

from typing import Annotated

from arcuate.kernel.settings import RoomSettings, room_config


class ProtocolingSettings(RoomSettings):
    """How long a check may take, and how much it looks at."""

    model_config = room_config("protocoling")

    answer_within_s: Annotated[
        float, "Seconds after which CDS Hooks is answered with what is known; what is missing is said in a card."
    ] = 1.5
    check_within_s: Annotated[
        float, "Seconds that one $check may take; what is missing then is said as a DetectedIssue."
    ] = 10.0
    workers: Annotated[int, "Orders that are examined at the same time."] = 4
    drafts: Annotated[int, "Draft orders of one CDS Hooks request that are examined; more are counted in a card."] = 20
    keep_days: Annotated[int, "Days for which decisions and feedback are kept."] = 730
