"""Settings of the scheduling room."""

from typing import Annotated

from arcuate.kernel.settings import RoomSettings, room_config


class SchedulingSettings(RoomSettings):
    """How forecasts are made and what answers when no model does."""

    model_config = room_config("scheduling")

    limit_s: Annotated[float, "Seconds that a model may take for one answer; then the site's rate answers."] = 0.2
    no_show_rate: Annotated[
        float,
        "Share of visits that are missed, until the site's own is known (8.2 % of 28,991 MRI visits in Brazil, told).",
    ] = 0.08
    late_cancel_rate: Annotated[
        float,
        "Share of visits cancelled less than 24 h before, until the site's own is known (judged: 0.3 of all cancellations).",
    ] = 0.05
    own_rate_visits: Annotated[int, "So many visits with a known outcome make the site's own rate."] = 200
    feed: Annotated[bool, "Read the record's feed for arrivals and outcomes."] = True
