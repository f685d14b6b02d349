"""Settings of the journey room."""

from typing import Annotated

from arcuate.kernel.settings import RoomSettings, room_config


class JourneySettings(RoomSettings):
    """How long each stage may take before its fallback, and before people are told."""

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
    assign_wait_s: Annotated[
        float, "Seconds for which a reader is awaited from assignment before the case goes to the shared list."
    ] = 60.0
    order_limit_s: Annotated[float, "Seconds that an unknown order may be awaited before images count as orphaned."] = (
        3600.0
    )
    check_limit_s: Annotated[float, "Seconds after which an order that is still not checked counts as stuck."] = 600.0
    schedule_limit_stat_s: Annotated[
        float, "Seconds after which a stat order without an appointment counts as never scheduled."
    ] = 7200.0
    schedule_limit_urgent_s: Annotated[
        float, "Seconds after which an urgent order without an appointment counts as never scheduled."
    ] = 86400.0
    schedule_limit_routine_s: Annotated[
        float, "Seconds after which any other order without an appointment counts as never scheduled."
    ] = 604800.0
    arrival_limit_s: Annotated[float, "Seconds after the end of a visit until a case without arrival is stuck."] = (
        7200.0
    )
    exam_limit_s: Annotated[float, "Seconds after the arrival until a case without exam is stuck."] = 14400.0
    images_limit_s: Annotated[float, "Seconds after the exam until a case without measurement is stuck."] = 3600.0
    reader_limit_s: Annotated[float, "Seconds until a case that can be read and has no reader is stuck."] = 900.0
    draft_limit_s: Annotated[float, "Seconds until a case with a reader and no draft is stuck."] = 900.0
    delivery_limit_s: Annotated[float, "Seconds until a signed report that nobody acknowledged is stuck."] = 900.0
    filing_limit_s: Annotated[
        float, "Seconds after which an acknowledged message that is not filed stands on the reconciler's list."
    ] = 300.0
    watch_every_s: Annotated[float, "Seconds between two looks at rooms and connections."] = 15.0
    alert_after_s: Annotated[float, "Seconds for which a room or connection must fail before one alert is raised."] = (
        45.0
    )
    silent_after_s: Annotated[float, "Seconds without a message after which a sender's silence is looked into."] = (
        3600.0
    )
    silent_least: Annotated[
        int, "Messages that a sender must have sent in the same hours before for its silence to be an alert."
    ] = 10
    recovered_after_s: Annotated[
        float, "Seconds for which it must work again before its one recovery is told; shorter pauses are counted."
    ] = 60.0
