"""Settings of the dashboard."""

from typing import Annotated

from arcuate.kernel.settings import RoomSettings, room_config


class DashboardSettings(RoomSettings):
    """How pages are built, kept alive and closed."""

    model_config = room_config("dashboard")

    part_limit_s: Annotated[float, "Seconds that a part of a page may take before the page goes out without it."] = 0.8
    later_limit_s: Annotated[float, "Seconds that a part may take which comes in after its page."] = 10.0
    part_retry_s: Annotated[int, "Seconds after which a page asks again for a part that was missing."] = 2
    heartbeat_s: Annotated[float, "Seconds between two signs of life on the event stream."] = 5.0
    settle_s: Annotated[float, "Seconds that changes are gathered before pages are told."] = 0.4
    again_s: Annotated[float, "Seconds after the last change when pages look once more, for rooms that follow."] = 3.0
    idle_min: Annotated[float, "Minutes without a key or click after which a person is signed out."] = 15.0
    lease_min: Annotated[float, "Minutes for which an opened case belongs to its reader without a further act."] = 10.0
    shown_from: Annotated[float, "Chance of not coming from which it is shown on the board."] = 0.04
    marked_from: Annotated[float, "Chance of not coming from which a visit is marked on the board."] = 0.25
    free_min: Annotated[int, "Least minutes between two visits that the board calls free."] = 20
    late_min: Annotated[int, "Minutes behind its slots from which a scanner or a person counts as late."] = 10
    look_due_min: Annotated[int, "Minutes before its due time from which a case is marked."] = 30
    stop_due_min: Annotated[int, "Minutes before its due time from which a case is marked strongly."] = 15
    list_rows: Annotated[int, "Most rows of a list on one page; the rest is counted."] = 50
    secure_cookie: Annotated[
        bool, "True where people reach the pages by https: the session then travels there only."
    ] = False
    help_desk: Annotated[str, "Whom people call who cannot sign in, as shown on the sign-in page."] = ""
