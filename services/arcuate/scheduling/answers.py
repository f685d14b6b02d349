"""Forecasts as FHIR resources: RiskAssessment for attendance, Observation for wait and duration.

Extensions (all `urn:arcuate:ext:…`): `confidence` (code usual, low or fallback), `model-away` (code silent or absent: the fallback
answers because the model was away, not because of what is known of the visit; asked again later, the model may answer), `model` (name,
version, sha256, data-until, synthetic, site), `missing` (one an input that was not known), `interval` (Range of an 80 % interval), `base`
(the site's rate), `like` (visits with like chances, and how many had the outcome), `reason` (outcome, sentence, points).
"""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal

from arcuate.kernel.codes import CS_FORECAST, Json, Ucum, coding, concept, identifier, job_system, quantity, reference
from arcuate.scheduling.domain import Chance, Forecast, Moment, Quantiles

EXT = "urn:arcuate:ext:"
CS_MODEL = "urn:arcuate:cs:model"
_WORDS = {"no-show": "may not come", "late-cancel": "may cancel on the last day"}
_DID = {"no-show": "were missed", "late-cancel": "were cancelled on the last day"}
_MINUTES = {"wait": "wait from arrival to the begin of the exam", "duration": "time on the table"}


def risk_assessment(moment: Moment, forecast: Forecast) -> Json:
    """Return the attendance forecast (FHIR R4 RiskAssessment); chances as fractions of 1."""
    resource = _head("RiskAssessment", "attendance", moment, forecast)
    resource |= {
        "basis": [reference("Appointment", moment.visit.id)],
        "occurrenceDateTime": _stamp(moment.decided_at),
        "prediction": [_prediction(outcome, chance) for outcome, chance in forecast.chances.items()],
    }
    notes = [
        _note(outcome, r.sentence, r.points) for outcome, chance in forecast.chances.items() for r in chance.reasons
    ]
    if forecast.why_fallback:
        notes.append({"text": f"The site's rate: {forecast.why_fallback}"})
    if notes:
        resource["note"] = notes
    return resource


def observations(moment: Moment, forecast: Forecast) -> list[Json]:
    """Return wait and duration (FHIR R4 Observation), 10, 50 and 90 % in whole minutes."""
    return [_observation(kind, minutes, moment, forecast) for kind, minutes in forecast.minutes.items()]


def _observation(kind: str, minutes: Quantiles, moment: Moment, forecast: Forecast) -> Json:
    resource = _head("Observation", kind, moment, forecast)
    resource |= {
        "focus": [reference("Appointment", moment.visit.id)],
        "effectiveDateTime": _stamp(moment.decided_at),
        "component": [_component(name, getattr(minutes, name)) for name in ("p10", "p50", "p90")],
    }
    if kind == "wait" and moment.visit.arrived is not None:
        waited = max(0.0, (moment.decided_at - moment.visit.arrived).total_seconds() / 60)
        resource["component"].append(_component("waited", waited))
    if forecast.why_fallback:
        resource["note"] = [{"text": f"A general rule: {forecast.why_fallback}"}]
    return resource


def _head(resource_type: str, kind: str, moment: Moment, forecast: Forecast) -> Json:
    words = _MINUTES.get(kind, "attendance of a booked visit")
    return {
        "resourceType": resource_type,
        "extension": _extensions(forecast),
        "identifier": [identifier(job_system("scheduling"), f"{kind}-{moment.visit.id}")],
        "status": "final",
        "method": _method(forecast),
        "code": concept(CS_FORECAST, kind, text=words),
        "subject": reference("Patient", str(moment.visit.patient)),
    }


def _method(forecast: Forecast) -> Json:
    if forecast.model is None or forecast.confidence == "fallback":
        return concept(CS_MODEL, "fallback", text="the site's rate or a general rule, no model")
    made = coding(CS_MODEL, forecast.model.name)
    return {
        "coding": [{**made, "version": forecast.model.version}],
        "text": f"{forecast.model.name} {forecast.model.version}",
    }


def _extensions(forecast: Forecast) -> list[Json]:
    found: list[Json] = [{"url": f"{EXT}confidence", "valueCode": forecast.confidence.value}]
    if forecast.away is not None:
        found.append({"url": f"{EXT}model-away", "valueCode": forecast.away.value})
    found += [{"url": f"{EXT}missing", "valueString": words} for words in forecast.missing]
    if forecast.model is not None:
        model = forecast.model
        parts: list[Json] = [
            {"url": "name", "valueString": model.name}, {"url": "version", "valueString": model.version},
            {"url": "sha256", "valueString": model.sha256}, {"url": "data-until", "valueDate": model.data_until},
            {"url": "synthetic", "valueBoolean": model.synthetic}, {"url": "site", "valueString": model.site},
        ]  # fmt: skip
        found.append({"url": f"{EXT}model", "extension": parts})
    return found


def _prediction(outcome: str, chance: Chance) -> Json:
    extensions: list[Json] = [
        {"url": f"{EXT}interval", "valueRange": {"low": _percent(chance.low), "high": _percent(chance.high)}},
        {"url": f"{EXT}base", "valueDecimal": _decimal(chance.base, 3)},
    ]
    made: Json = {
        "extension": extensions,
        "outcome": concept(CS_FORECAST, outcome, text=_WORDS[outcome]),
        "probabilityDecimal": _decimal(chance.value, 3),
    }
    if chance.like is not None:
        count, events = chance.like
        extensions.append({
            "url": f"{EXT}like", "extension": [{"url": "visits", "valueInteger": count}, {"url": "events", "valueInteger": events}],
        })  # fmt: skip
        made["rationale"] = f"{events} of {count} visits with like chances {_DID[outcome]}"
    return made


def _note(outcome: str, sentence: str, points: float) -> Json:
    return {
        "extension": [
            {
                "url": f"{EXT}reason",
                "extension": [
                    {"url": "outcome", "valueCode": outcome},
                    {"url": "sentence", "valueString": sentence},
                    {"url": "points", "valueDecimal": _decimal(points, 1)},
                ],
            }
        ],
        "text": f"{_WORDS[outcome]}: {sentence} ({points:+.0f} points)",
    }


def _component(code: str, minutes: float) -> Json:
    return {"code": concept(CS_FORECAST, code), "valueQuantity": quantity(round(minutes), Ucum.MINUTE)}


def _percent(chance: float) -> Json:
    return quantity(_decimal(100 * chance, 0), Ucum.PERCENT)


def _decimal(value: float, digits: int) -> Decimal:
    return Decimal(f"{value:.{digits}f}")


def _stamp(when: datetime) -> str:
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def rate_lines(counts: Mapping[str, tuple[int, int]]) -> dict[str, str]:
    """Return rates as people read them: "8 % (41 of 512)"."""
    return {o: f"{100 * e / n:.0f} % ({e} of {n})" if n >= 20 else "too few" for o, (n, e) in counts.items()}
