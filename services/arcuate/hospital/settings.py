"""Every base rate of the synthetic department, each with its default and where the figure comes from.

Status of a figure: `read` in the source's own abstract, table or page; `told` by a secondary report; `judged` = general
knowledge without a source, keep it a parameter. None of them is a promise about a real department.
"""

from datetime import date
from typing import Annotated

from arcuate.kernel.settings import RoomSettings, room_config


class HospitalSettings(RoomSettings):
    """Base rates of the synthetic department (environment `ARCUATE_HOSPITAL_…`)."""

    model_config = room_config("hospital")

    # What the department is.
    history_zone: Annotated[
        str, "IANA zone in which the history's opening hours are meant; the demo uses the site's own."
    ] = "Europe/Zurich"
    history_end: Annotated[
        date, "Last day of the written history: fixed, so that the same seed gives the same bytes."
    ] = date(2026, 10, 31)
    people: Annotated[int, "People who live around the department; follow-up patients come often, most come once."] = (
        14_000
    )
    open_minute: Annotated[int, "Minute after midnight at which the scanners open (judged)."] = 7 * 60
    last_slot_minute: Annotated[int, "Minute after midnight at which the last slot may begin (judged)."] = 17 * 60 + 15
    fill_mr: Annotated[
        float, "Share of MR slots that are booked; staffed time in use is about 70 % (ISMRM 2017 abstract 4343, read)."
    ] = 0.87
    fill_ct: Annotated[float, "Share of CT slots that are booked (judged)."] = 0.80

    # Attendance.
    no_show_rate: Annotated[
        float,
        "Share of outpatient appointments still standing 24 h before that are missed; 8.2 % of 28,991 MRI visits in "
        "Brazil (J Oper Res Soc 2026, read); 5.1 % in Boston (JACR 2017), 17.4 % in Singapore (AJR 2020;215:1155).",
    ] = 0.082
    cancel_rate: Annotated[
        float,
        "Share of outpatient bookings cancelled; 22.3 % in California, 8.0 % in Seattle (both read): between them.",
    ] = 0.15
    late_cancel_share: Annotated[float, "Share of cancellations later than 24 h before (judged: 0.25 to 0.40)."] = 0.30
    rebooked_share: Annotated[float, "Share of early cancellations that get a new date (judged: 0.4 to 0.6)."] = 0.50
    cancel_by_patient: Annotated[float, "Share of cancellations by the patient (70.2 %, Acad Radiol 2024, read)."] = (
        0.702
    )
    cancel_by_provider: Annotated[
        float, "Share of cancellations by the referrer (18.7 %, the rest the centre's; read)."
    ] = 0.187
    tendency_sd: Annotated[
        float, "Spread of a person's hidden tendency to miss, in log odds (judged; sets how far past misses predict)."
    ] = 1.1

    # Lead times.
    lead_median_days: Annotated[
        float, "Median days from order to exam; mean 18.5 d, 48 % over 10 d in 97,160 MR orders (JACR 2024, read)."
    ] = 9.6
    lead_sigma: Annotated[float, "Log-normal spread of that time; 1.15 gives the mean of 18.5 d (derived)."] = 1.15

    # Arrivals.
    early_mean_min: Annotated[float, "Mean minutes before the slot at which people arrive (asked: 30)."] = 36.0
    early_sd_min: Annotated[
        float, "Spread of the arrival; with the mean it gives about 60 % who come 30 min early (JACR 2017, read)."
    ] = 15.0
    late_share: Annotated[float, "Share of attenders who come after their slot began (judged)."] = 0.08
    late_mean_min: Annotated[float, "Mean minutes of that lateness (judged)."] = 14.0

    # Scanner time.
    preparation_mr_min: Annotated[
        float, "Mean minutes from arrival until ready for MR: screening form, changing (judged)."
    ] = 14.0
    preparation_ct_min: Annotated[float, "The same for CT (judged)."] = 6.0
    preparation_contrast_min: Annotated[float, "Added when a line is needed for contrast (judged)."] = 6.0
    preparation_cv: Annotated[float, "Spread of the preparation as a share of its mean (judged)."] = 0.5
    exam_cv: Annotated[
        float, "Spread of identically protocoled MR exams: SD 19 to 29 % of the mean (JMRI 2019, 2,705 exams, read)."
    ] = 0.24
    technologist_sd_min: Annotated[float, "Technologist's random effect: SD 2.65 min (JMRI 2019, read)."] = 2.65
    inpatient_extra_min: Annotated[float, "Inpatients take 4.18 min longer (JMRI 2019, read)."] = 4.18
    emergency_extra_min: Annotated[float, "Emergency patients take 1.86 min longer (JMRI 2019, read)."] = 1.86
    turnover_min: Annotated[
        float, "Empty table between MR patients: 9:33 and 10:47 min on two scanners (ISMRM 2018 abstract 2634, read)."
    ] = 10.0
    turnover_cv: Annotated[float, "Spread of the turnover as a share of its mean (judged)."] = 0.5
    turnover_ct_min: Annotated[float, "Empty table between CT patients (judged)."] = 5.0
    stopped_share: Annotated[
        float, "Exams not completed for claustrophobia: 0.76 % of 677,988 (UK, AuntMinnieEurope, told)."
    ] = 0.008
    failures_per_hour: Annotated[float, "Scanner failures per running hour (judged)."] = 1 / 90
    repair_median_min: Annotated[float, "Median minutes until a failed scanner runs again (judged)."] = 25.0

    # Unplanned work.
    emergencies_per_day_ct: Annotated[float, "Emergency CT heads and angiographies a working day (judged)."] = 7.0
    emergencies_per_day_mr: Annotated[float, "Emergency and stat inpatient MR a working day (judged)."] = 2.0

    # Orders.
    stat_share: Annotated[float, "Share of inpatient MR ordered STAT (36 %, HVPAA 2018, read)."] = 0.36
    poor_indication_share: Annotated[
        float,
        "Indications that give little to go on; 63 of 100 brain MR requests judged poor (catalogue abstract, read).",
    ] = 0.30
    faulty_order_share: Annotated[
        float,
        "Orders with an error that a rule should find; 16 % suboptimal choice in 1,056 (Open J Radiol 2018, read).",
    ] = 0.12
    prior_named_share: Annotated[float, "Requests that name a prior exam: 35 % of 400 forms (PMC12757699, read)."] = (
        0.35
    )

    # Reading and reports.
    reading_cv: Annotated[
        float, "Spread of reading time; brain MR mean 11 min for an attending, 358 reads (Health Imaging, told)."
    ] = 0.5
    report_turnaround_min: Annotated[float, "Minutes from the draft to the signed report in the demo (judged)."] = 12.0
    interruptions_per_hour: Annotated[
        float, "Telephone calls to the neuroradiology room (4.4/h, BMJ Open Qual 8(3), read)."
    ] = 4.4
