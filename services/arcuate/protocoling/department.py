"""Given facts of the department (`data/department_facts.json`): limits, ages, days. Rules name them as `site.NAME`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arcuate.kernel.errors import BadInput
from arcuate.protocoling.lexicon import DATA


@dataclass(frozen=True)
class Department:
    """Limits of this department; a clinician must confirm them before use on patients."""

    iodinated_act_below_egfr: float
    aki_creatinine_ratio: float
    egfr_max_age_days: int
    pregnancy_status_from_age: int
    pregnancy_status_to_age: int
    sedation_from_age: float
    sedation_to_age: float
    mr_table_limit_kg: float
    ct_table_limit_kg: float
    puncture_inr_max: float
    puncture_platelets_min: float
    duplicate_days: int
    gadolinium: str
    iodinated: str
    iodinated_alternative: str


def load_department(path: Path = DATA / "department_facts.json") -> Department:
    """Read the department's facts.

    Raises:
        BadInput: The file cannot be read or lacks a fact.
    """
    try:
        facts: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        sedation, puncture = facts["sedation_prep"], facts["sedation_prep"]["lumbar_puncture"]
        ages = facts["pregnancy"]["status_needed"]["ages"]
        return Department(
            iodinated_act_below_egfr=float(facts["iodinated_renal"]["act_below_egfr"]),
            aki_creatinine_ratio=float(facts["iodinated_renal"]["aki_creatinine_ratio"]),
            egfr_max_age_days=int(facts["iodinated_renal"]["egfr_max_age_days"]),
            pregnancy_status_from_age=int(ages[0]),
            pregnancy_status_to_age=int(ages[1]),
            sedation_from_age=float(sedation["mri_plan_needed_ages_years"][0]),
            sedation_to_age=float(sedation["mri_plan_needed_ages_years"][1]),
            mr_table_limit_kg=float(sedation["mr_table_limit_kg"]),
            ct_table_limit_kg=float(sedation["ct_table_limit_kg"]),
            puncture_inr_max=float(puncture["inr_max"]),
            puncture_platelets_min=float(puncture["platelets_min"]),
            duplicate_days=int(facts["duplicate"]["same_exam_days"]),
            gadolinium=str(facts["agents"]["gadolinium"]),
            iodinated=str(facts["agents"]["iodinated"]),
            iodinated_alternative=str(facts["agents"]["iodinated_alternative"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(
            f"The department's facts cannot be used: {error}", where=path.name, todo="Mend the entry it names."
        ) from None
