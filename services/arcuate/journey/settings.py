"""Settings of the journey room."""

from typing import Annotated

from arcuate.kernel.settings import RoomSettings, room_config


class JourneySettings(RoomSettings):
    """How long each stage may take before its fallback."""

    model_config = room_config("journey")

    images_wait_s: Annotated[
        float, "Seconds after the exam for which images are awaited before the case goes on without them."
    ] = 600.0
    measuring_wait_s: Annotated[
        float, "Seconds after the images for which measurements are awaited before the case goes on."
    ] = 900.0
    check_wait_s: Annotated[
        float, "Seconds for which a check of the order is awaited before the case goes on unchecked."
    ] = 60.0
    no_show_expiry_s: Annotated[
        float, "Seconds after a missed appointment without a new one until the case expires."
    ] = 86400.0
    ask_again_s: Annotated[float, "Seconds until a room that did not answer is asked again."] = 30.0
    reading_due_stat_min: Annotated[float, "Minutes from the exam until a stat case is due."] = 60.0
    reading_due_urgent_min: Annotated[float, "Minutes from the exam until an urgent case is due."] = 240.0
    reading_due_routine_min: Annotated[float, "Minutes from the exam until a routine case is due."] = 1440.0
    stuck_after_s: Annotated[float, "Seconds in one stage after which the reconciler lists a case as stuck."] = 7200.0
