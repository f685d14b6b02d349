"""Invented people: who lives around the department, and what of them a FHIR Patient shows.

A person's hidden traits (tendency to miss, insurance, deprivation, a wrong telephone number) steer what happens and are
never written into a resource.
"""

import random
import tomllib
from dataclasses import dataclass
from datetime import date, timedelta
from importlib.resources import files

import numpy as np
import numpy.typing as npt

from arcuate.hospital.settings import HospitalSettings
from arcuate.kernel.codes import Json, concept, identifier, patient_system

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

ASSIGNER = "SYNTH"
"""Assigning authority of every identifier of the synthetic department (CX-4.1)."""

TEST_DATA: Json = {
    "security": [
        {"system": "http://terminology.hl7.org/CodeSystem/v3-ActReason", "code": "HTEST", "display": "test health data"}
    ]
}
"""FHIR's own mark for resources that are not about anybody."""

_MARITAL = "http://terminology.hl7.org/CodeSystem/v3-MaritalStatus"
_RING_KM = 10.0


@dataclass(frozen=True)
class Population:
    """Everybody around the department, one array element a person."""

    birth: Ints  # proleptic ordinal of the birth date
    male: Bools
    single: Bools
    mobile: Bools  # a mobile number is on file
    reachable: Bools  # and somebody answers it
    ring: Ints  # distance from the department in tens of km, 0..9
    district: Ints  # 0..9 within the ring
    public: Bools
    deprivation: Ints  # fifth, 0 (least) to 4
    tendency: Floats  # hidden log odds to miss
    demand: Floats  # share of all visits, sums to 1

    def __len__(self) -> int:
        return len(self.birth)


@dataclass(frozen=True)
class Person:
    """One invented person as messages and images show them."""

    number: str  # MRN, assigner SYNTH
    family: str
    given: str
    birth: date
    male: bool
    single: bool
    mobile: str  # empty: none on file
    postal_code: str

    @property
    def sex(self) -> str:
        """Return the administrative sex of HL7 table 0001 and DICOM."""
        return "M" if self.male else "F"

    def age(self, on: date) -> int:
        """Return whole years on that day."""
        return on.year - self.birth.year - ((on.month, on.day) < (self.birth.month, self.birth.day))


def load_given_names() -> tuple[str, ...]:
    """Read the invented given names."""
    text = (files("arcuate.hospital") / "data" / "names.toml").read_text(encoding="utf-8")
    return tuple(tomllib.loads(text)["given"])


def populate(settings: HospitalSettings, rng: np.random.Generator, on: date) -> Population:
    """Draw the people; ages are meant on that day (normal, mean 58, SD 18, cut at 18 and 95)."""
    n = settings.people
    age = np.clip(rng.normal(58, 18, n), 18, 95)
    deprivation = rng.integers(0, 5, n)
    # Poorer districts lie a little further out: so the postal code carries a trace of deprivation, as in life.
    ring = np.clip(rng.gamma(1.3, 14.5, n) / _RING_KM + 0.15 * (deprivation - 2), 0, 9).astype(np.int64)
    reachable = rng.random(n) < 0.88 - 0.03 * deprivation
    demand = rng.gamma(0.55, 1.0, n)
    return Population(
        birth=(on.toordinal() - (age * 365.25).astype(np.int64)),
        male=rng.random(n) < 0.46,
        single=rng.random(n) < 0.42,
        mobile=np.where(reachable, rng.random(n) < 0.93, rng.random(n) < 0.40),
        reachable=reachable,
        ring=ring,
        district=rng.integers(0, 10, n),
        public=rng.random(n) < 0.40,
        deprivation=deprivation,
        tendency=rng.normal(0, settings.tendency_sd, n),
        demand=demand / demand.sum(),
    )


def person_at(population: Population, index: int, given: tuple[str, ...]) -> Person:
    """Return one person of the population with an invented name and number."""
    return Person(
        number=f"S{100000 + index}",
        family=f"Synthetic-{index:05d}",
        given=given[(index * 7919) % len(given)],
        birth=date.fromordinal(int(population.birth[index])),
        male=bool(population.male[index]),
        single=bool(population.single[index]),
        mobile=f"+000 555 {index:05d}" if population.mobile[index] else "",
        postal_code=f"SY{int(population.ring[index])}{int(population.district[index]):02d}",
    )


def invent(number: int, years: float, male: bool, on: date, *, source: random.Random, given: tuple[str, ...]) -> Person:
    """Return one person of a wanted age and sex, for the demo's morning."""
    return Person(
        number=f"S{900000 + number}",
        family=f"Synthetic-{number:04d}",
        given=given[number % len(given)],
        birth=on - timedelta(days=int(years * 365.25) + source.randrange(300)),
        male=male,
        single=source.random() < 0.4,
        mobile=f"+000 555 {number:05d}" if source.random() < 0.85 else "",
        postal_code=f"SY{source.randrange(6)}{source.randrange(10):02d}",
    )


def patient_resource(person: Person, logical_id: str) -> Json:
    """Return the FHIR Patient as the gateway would make it from a PID segment."""
    resource: Json = {
        "resourceType": "Patient",
        "id": logical_id,
        "meta": TEST_DATA,
        "identifier": [identifier(patient_system(ASSIGNER), person.number, "MR")],
        "active": True,
        "name": [{"use": "official", "family": person.family, "given": [person.given]}],
        "gender": "male" if person.male else "female",
        "birthDate": person.birth.isoformat(),
        "address": [{"postalCode": person.postal_code}],
        "maritalStatus": concept(_MARITAL, "S" if person.single else "M"),
    }
    if person.mobile:
        resource["telecom"] = [{"system": "phone", "value": person.mobile, "use": "mobile"}]
    return resource
