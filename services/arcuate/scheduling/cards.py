"""Model cards: what a model was trained on, how good it was on later visits, and what it is not for."""

from collections.abc import Mapping
from dataclasses import dataclass

from arcuate.scheduling.measures import Measured
from arcuate.scheduling.modelfile import Data


@dataclass(frozen=True)
class Line:
    """One forecast's measures for one outcome on one part of the judged rows."""

    outcome: str
    part: str
    kind: str
    count: int
    rate: float
    measured: Mapping[str, Measured]


@dataclass(frozen=True)
class Metrics:
    """All measures; `held` = groups whose observed rate lay in the interval, and groups, by outcome."""

    lines: tuple[Line, ...]
    held: Mapping[str, tuple[int, int]]

    def __str__(self) -> str:
        return self.table()

    def table(self) -> str:
        """Return the measures as a Markdown table."""
        names = list(self.lines[0].measured) if self.lines else []
        head = f"| outcome | rows | forecast | n | rate | {' | '.join(names)} |"
        rows = [
            f"| {line.outcome} | {line.part} | {line.kind} | {line.count} | {line.rate:.3f} | "
            f"{' | '.join(str(line.measured[name]) for name in names)} |"
            for line in self.lines
        ]
        return "\n".join([head, "|" + "---|" * (5 + len(names)), *rows])


def origin(data: Data) -> str:
    """Return the sentence that says plainly where the data come from."""
    if data.synthetic:
        return (
            f"**Synthetic.** Every visit, person and outcome was invented by a seeded generator ({data.site}); the base rates "
            "come from published studies, the effects partly from judgement. The figures below say that the method works on "
            "such data. They say nothing about any real site, and no figure here is a promise. Train on your own history before "
            "you rely on it."
        )
    return f"Real visits of {data.site}. The figures hold for that site and time only."


def attendance_card(metrics: Metrics, data: Data, trained: int, calibrated: int) -> str:
    """Return the card of the attendance model."""
    held = "; ".join(f"{outcome}: {inside} of {groups}" for outcome, (inside, groups) in metrics.held.items())
    return f"""# attendance

Chance that a booked visit is missed (no-show), or cancelled less than 24 h before (late cancellation).

{origin(data)}

| | |
|---|---|
| data | {data.visits} visits of {data.patients} people, {data.first_day} to {data.last_day} |
| split | by time: the first 10 % of starts are history only, the next 50 % train ({trained} rows), \
the next 20 % calibrate ({calibrated} rows), the last 20 % judge |
| rows | each visit at booking, and 24 h before if it still stood then; features as known at that moment |
| method | five XGBoost boosters on draws of patients, depth 3; chance may only rise with past misses and moves; Platt line |
| interval | 80 %: spread of the boosters and binomial uncertainty of the nearest 300 calibration visits, joined on the log odds |
| not used | sex, marital status, postal code, language, insurance, anything known after the decision |
| refused | features that change when later facts are taken away; an AUC above 0.90 (a leak until shown otherwise) |

## Measured on the last 20 % of the time

Brackets: 95 % bootstrap by patient. Slope 1 = neither too bold nor too shy. "Past misses" = the person's own share, shrunk to the
site's rate: what a desk can count by hand.

{metrics.table()}

Interval: the judged visits 24 h before, in 20 groups of like chance; the observed rate of a group lay inside its mean 80 % interval
in {held}. (The observed rate of a group has noise of its own, so this share is a lower view of the interval's coverage.)

## For what, and for what not

For offering help: a call, a text, transport, another day. Not for penalty, not for refusing a visit, not for double booking a person.
The telephone entry is today's, not that of the booking; a site whose desk edits numbers after a missed visit must leave it out.
Effects of calls made because of a forecast are not separated here: a call lowers the rate that the next training sees.
"""


def waiting_card(metrics: Metrics, data: Data, trained: int, calibrated: int, widened: Mapping[str, float]) -> str:
    """Return the card of the waiting model."""
    steps = "; ".join(f"{name} by {minutes:+.1f} min" for name, minutes in widened.items())
    return f"""# waiting

Minutes from arrival to the begin of the exam (wait), and minutes on the table (duration), as 10, 50 and 90 % quantiles.

{origin(data)}

| | |
|---|---|
| data | {data.visits} visits with arrival, begin and end, {data.first_day} to {data.last_day} |
| split | by day: the first 60 % train ({trained} rows), the next 20 % calibrate ({calibrated} rows), the last 20 % judge |
| rows of waits | each visit at the opening of its day, at arrival, and while waiting (every 20 min, three times at most) |
| method | XGBoost with the quantile loss at 10, 50 and 90 %, sorted so that they never cross |
| interval | both ends moved by one figure found on the calibration days (conformal): {steps} |
| not used | anything known after the moment; who the patient is |

## Measured on the last 20 % of the time

Brackets: 95 % bootstrap by day. Coverage = share of true values inside 10 to 90 % (wished: 0.80). "Median" = one figure for all, with the
10 and 90 % quantiles of the training days; "booked minutes" scales the slot; "by queue" = medians by the number of people ahead.

{metrics.table()}

A wait that can be zero makes intervals cover more than 80 %. The live line is read from the statuses of Appointment,
Encounter and Procedure: where a site does not send arrivals, the forecast is that of the morning.
"""
