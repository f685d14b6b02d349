"""Settings of the assignment room."""

from typing import Annotated

from arcuate.assignment.cases import Limits
from arcuate.assignment.domain import Weights
from arcuate.kernel.settings import RoomSettings, room_config


class AssignmentSettings(RoomSettings):
    """How cases are given to readers. Points: smaller is better; they were set by judgement, not measured in a hospital."""

    model_config = room_config("assignment")

    limit_s: Annotated[
        float, "Seconds that the exact method may take for one plan; then the best plan found so far answers."
    ] = 2.0
    gap: Annotated[float, "Relative distance to the best possible plan at which the exact method may stop."] = 0.001
    horizon_h: Annotated[float, "A shift that begins more than so many hours from now does not count for planning."] = (
        16.0
    )
    due_critical_min: Annotated[
        int, "Minutes within which a stat case should be read where its Task states no due time."
    ] = 60
    due_urgent_min: Annotated[
        int, "Minutes within which an urgent case should be read where its Task states no due time."
    ] = 120
    due_routine_min: Annotated[
        int, "Minutes within which a routine case should be read where its Task states no due time."
    ] = 480
    ageing_min: Annotated[
        int, "So many minutes before its due time a routine case counts as urgent, so that it does not starve."
    ] = 60
    target_percent: Annotated[int, "Share of a shift's minutes that plans fill before load begins to cost."] = 83
    skill_points: Annotated[tuple[int, int, int], "Points of a missing level of the wished skill: critical, urgent, routine."] = (
        120, 80, 40,
    )  # fmt: skip
    continuity_points: Annotated[int, "Points when somebody else than the reader of the prior study gets the case."] = (
        30
    )
    late_points: Annotated[
        tuple[int, int, int],
        "Points a minute that the reader comes on shift after the case is due: critical, urgent, routine.",
    ] = (20, 4, 1)
    left_over_points: Annotated[tuple[int, int, int], "Points of a case that nobody gets: critical, urgent, routine."] = (
        20_000, 4_000, 800,
    )  # fmt: skip
    load_points: Annotated[int, "Points a minute of load above the target share."] = 2
    overload_points: Annotated[int, "Further points a minute of load more than ten points above the target share."] = 6
    turn_points: Annotated[int, "Points an hour that a reader carried above the mean of all readers (a fair turn)."] = 5
    turn_days: Annotated[int, "Days over which carried minutes count for a fair turn."] = 7
    move_points: Annotated[int, "Points of taking an unopened case away from the reader who was given it."] = 40

    def weights(self) -> Weights:
        """Return the points as the planning step takes them."""
        return Weights(
            expertise=self.skill_points, continuity=self.continuity_points, late=self.late_points,
            unassigned=self.left_over_points, load1=self.load_points, load2=self.overload_points,
            target=self.target_percent, turn=self.turn_points, move=self.move_points,
        )  # fmt: skip

    def limits(self) -> Limits:
        """Return the times that planning needs."""
        return Limits((self.due_critical_min, self.due_urgent_min, self.due_routine_min), self.ageing_min)
