"""All facts of one order, by the names under which rules ask for them (`renal.egfr`, `exam.contrast`, `says('pacemaker')`)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

from arcuate.protocoling.chart import Chart, Stated, state
from arcuate.protocoling.department import Department, load_department
from arcuate.protocoling.domain import ABSENT, Absent, Evidence, Exam, FlagClass, Value
from arcuate.protocoling.exams import Catalogue, load_catalogue
from arcuate.protocoling.implants import ImplantList, Implants, implants, load_implants
from arcuate.protocoling.kidney import Kidneys, kidneys
from arcuate.protocoling.lexicon import Lexicon, load_lexicon
from arcuate.protocoling.pregnancy import Pregnancy, pregnancy
from arcuate.protocoling.preparation import Preparation, preparation
from arcuate.protocoling.priors import Priors, priors
from arcuate.protocoling.question import Question, RegionTable, load_regions, question
from arcuate.protocoling.reactions import Reactions, ReactionWords, load_reactions, reactions
from arcuate.protocoling.resources import age_years, string
from arcuate.protocoling.statements import durations_days, said_persons


@dataclass(frozen=True)
class Knowledge:
    """Everything that is read from data files: the same for every order."""

    lexicon: Lexicon
    catalogue: Catalogue
    department: Department
    implants: ImplantList
    reactions: ReactionWords
    regions: RegionTable


def load_knowledge() -> Knowledge:
    """Read all data files of the room.

    Raises:
        BadInput: One of them cannot be used.
    """
    lexicon = load_lexicon()
    return Knowledge(
        lexicon, load_catalogue(), load_department(), load_implants(lexicon), load_reactions(lexicon), load_regions()
    )


@dataclass(frozen=True)
class ExamFacts:
    """`exam.*`: the ordered exam by its attributes."""

    modality: str | None
    region: str | None
    contrast: str | None
    side: str | Absent | None
    technique: tuple[str, ...] | None
    phases: int
    vessels: str | None
    head: bool | None
    spine: bool | None
    known: bool
    text: str


@dataclass(frozen=True)
class OrderFacts:
    """`order.*`: priority (`routine`, `urgent`, `asap`, `stat`) and setting (`ambulatory`, `inpatient`, `emergency`)."""

    priority: str
    setting: str | Absent | None


@dataclass(frozen=True)
class PatientFacts:
    """`patient.*`: age in years and sex by the record."""

    age: float | None
    sex: str | None


@dataclass(frozen=True)
class SaidFacts:
    """`said.*`: what the indication says of the person, and of time in days."""

    other_age: str | Absent | None
    other_sex: str | Absent | None
    longest_days: float | Absent
    shortest_days: float | Absent


@dataclass(frozen=True)
class Facts:
    """All facts of one order.

    `None` in a fact says that nobody could look; ABSENT that it was looked for and is not there.
    """

    exam: ExamFacts
    order: OrderFacts
    patient: PatientFacts
    said: SaidFacts
    renal: Kidneys
    implants: Implants
    reaction: Reactions
    pregnancy: Pregnancy
    question: Question
    prior: Priors
    prepare: Preparation
    site: Department
    stated: Stated

    def value(self, group: str, name: str) -> Value:
        """Return one fact."""
        made: Value = getattr(getattr(self, group), name)
        return made

    def function(self, name: str) -> Callable[..., bool | None]:
        """Return one of the functions that rules call with concept names."""
        return FUNCTIONS[name](self.stated)

    def evidence(self, flag_class: FlagClass) -> tuple[Evidence, ...]:
        """Return what flags of a class were decided on."""
        by_class: Mapping[FlagClass, tuple[Evidence, ...]] = {
            FlagClass.MRI_SAFETY: self.implants.evidence,
            FlagClass.CONTRAST_RENAL: self.renal.evidence,
            FlagClass.CONTRAST_ALLERGY: self.reaction.evidence,
            FlagClass.PREGNANCY: self.pregnancy.evidence,
            FlagClass.DUPLICATE: self.prior.evidence,
            FlagClass.SEDATION: self.prepare.evidence,
        }
        return by_class.get(flag_class, ())


FUNCTIONS: Mapping[str, Callable[[Stated], Callable[..., bool | None]]] = {
    "says": lambda stated: stated.reading.says,
    "denies": lambda stated: stated.reading.denies,
    "asks": lambda stated: stated.asks,
    "has": lambda stated: stated.has,
    "takes": lambda stated: stated.takes,
}
"""says: the indication says it. asks: the indication or a code of the order. has: order or problem list. takes: a medicine."""

GROUPS: Mapping[str, type] = {
    "exam": ExamFacts,
    "order": OrderFacts,
    "patient": PatientFacts,
    "said": SaidFacts,
    "renal": Kidneys,
    "implants": Implants,
    "reaction": Reactions,
    "pregnancy": Pregnancy,
    "question": Question,
    "prior": Priors,
    "prepare": Preparation,
    "site": Department,
}

NAMES: frozenset[tuple[str, str]] = frozenset(
    (group, field.name) for group, kind in GROUPS.items() for field in fields(kind) if field.name != "evidence"
)
"""Every (group, name) that a rule may ask for."""


def gather(chart: Chart, knowledge: Knowledge) -> Facts:
    """Return all facts of one order."""
    stated = state(chart, knowledge.lexicon)
    exam = knowledge.catalogue.of_order(chart.order)
    days = knowledge.department.duplicate_days
    return Facts(
        exam=exam_facts(exam),
        order=OrderFacts(string(chart.order.get("priority")) or "routine", _setting(chart)),
        patient=_patient(chart),
        said=_said(chart, stated),
        renal=kidneys(chart, stated, knowledge.department),
        implants=implants(chart, stated, knowledge.implants),
        reaction=reactions(chart, stated, exam, knowledge.reactions),
        pregnancy=pregnancy(chart, stated),
        question=question(chart, stated, exam, knowledge.lexicon, knowledge.regions),
        prior=priors(chart, stated, exam, knowledge.catalogue, knowledge.lexicon, days),
        prepare=preparation(chart),
        site=knowledge.department,
        stated=stated,
    )


_HEAD = {"brain", "head", "sella", "skull base", "orbits", "temporal bones", "sinuses", "face"}


def exam_facts(exam: Exam) -> ExamFacts:
    """Return what rules ask of an exam."""
    region, known = exam.region, exam.known
    vessels = None
    if region is not None:
        vessels = "veins" if "veins" in region else "arteries" if "vessels" in region else "none"
    return ExamFacts(
        exam.modality,
        region,
        exam.contrast,
        (exam.side or ABSENT) if known else None,
        exam.technique if known else None,
        exam.phases,
        vessels,
        (region in _HEAD) if region else None,
        ("spine" in region) if region else None,
        known,
        exam.display[:80],
    )


def _setting(chart: Chart) -> str | Absent | None:
    if chart.encounters is None:
        return None
    named = {
        "AMB": "ambulatory",
        "IMP": "inpatient",
        "ACUTE": "inpatient",
        "NONAC": "inpatient",
        "EMER": "emergency",
        "OBSENC": "inpatient",
    }
    for encounter in chart.encounters:
        code = string((encounter.get("class") or {}).get("code")) if isinstance(encounter.get("class"), dict) else ""
        if code in named and string(encounter.get("status")) not in {"cancelled", "entered-in-error", "finished"}:
            return named[code]
    return ABSENT


def _patient(chart: Chart) -> PatientFacts:
    patient = chart.patient or {}
    sex = string(patient.get("gender"))
    return PatientFacts(age_years(patient.get("birthDate"), chart.now), sex if sex in {"male", "female"} else None)


_AGE_TOLERANCE = 2.0


def _said(chart: Chart, stated: Stated) -> SaidFacts:
    patient = _patient(chart)
    persons = said_persons(stated.reading.text)
    other_age: str | Absent | None = ABSENT if patient.age is not None else None
    other_sex: str | Absent | None = ABSENT if patient.sex is not None else None
    for person in persons:
        if (
            patient.age is not None
            and person.age_years is not None
            and abs(person.age_years - patient.age) > _tolerance(patient.age)
        ):
            other_age = person.words
        if patient.sex is not None and person.sex is not None and person.sex != patient.sex:
            other_sex = person.words
    durations = durations_days(stated.reading.text)
    return SaidFacts(other_age, other_sex, max(durations, default=ABSENT), min(durations, default=ABSENT))


def _tolerance(age: float) -> float:
    """A year either way is a birthday; small children are counted in months."""
    return _AGE_TOLERANCE if age >= 5 else 1.0
