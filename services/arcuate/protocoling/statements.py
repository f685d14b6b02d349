"""Numbers that an indication states: age and sex, duration, eGFR and creatinine, weeks of pregnancy, spinal levels. Pure."""

import re
from dataclasses import dataclass

_AGE = re.compile(
    r"(?<![\w.\-/])(?P<number>\d{1,3})\s*-?\s*(?P<unit>y\.?\s?/?\s?o\.?|yr?s?\.?[\s\-]*olds?|years?[\s\-]*olds?|years?[\s\-]of[\s\-]age|"
    r"mo(?:nth)?s?[\s\-]*olds?|m/o|wks?[\s\-]*olds?|weeks?[\s\-]*olds?|w/o(?=\s+(?:boy|girl|infant|m\b|f\b|male|female))|days?[\s\-]*olds?|d/o)(?![a-z])"
)
_AGE_SEX = re.compile(
    r"(?:^|(?<=[.;,]\s))(?:this\s+)?(?P<number>\d{1,3})\s?-?(?P<sex>m|f)(?=\s*(?:[,.;:]|with\b|w/|w\b|c/o|here\b|presents|p/w|s/p|hx|h/o|who\b|has\b|$))"
)
_SEX = re.compile(
    r"(?<![\w'])(?:(?P<female>female|woman|lady|girl|mrs\.?|ms\.(?=\s[a-z])|gravida)|(?P<male>male|man|gentleman|boy|mr\.(?=\s[a-z])))(?![\w'])"
)
_SEX_AFTER_AGE = re.compile(
    r"\s*[,]?\s*(?:(?:right|left)[- ]handed\s+|r\.?h\.?d?\s+)?(?P<sex>m|f|male|female|man|woman|boy|girl|gentleman|lady)(?!\w)"
)
_NOT_NOW = re.compile(
    r"(?:since|at|from|age|aged|when|was|in|till|until|onset|dx|diagnosed|around|before|after|for|x|resected|surgery)\W+(?:age\W+)?$"
)
_RELATIVE = re.compile(
    r"\b(?:mother|father|mom|dad|brother|sister|sibling|son|daughter|uncle|aunt|cousin|grand\w+|wife|husband|spouse|partner|family|fhx?|twin|donor|caller|per)\b[^.;,]*$"
)
_DURATION = re.compile(
    r"(?<![\w.\-/])(?P<number>\d{1,3}(?:\.\d)?|a few|few|several|a couple(?: of)?|couple(?: of)?|one|two"
    r"|three|four|five|six|a|an|many)\s*\+?\s*-?\s*"
    r"(?P<unit>minutes?|mins?|hours?|hrs?|hr|h|days?|d|weeks?|wks?|wk|w|months?|mos?|mths?|mth|m|years?|yrs?|yr|y)(?![\w/])(?!\s*-?old|\s+(?:pregnan|gestation|gest\b|ga\b|iup))"
)
_NOT_DURATION = re.compile(r"(?:next|in|at|every|q|after|repeat in|f/u in|follow[- ]?up in|return in)\W*$")
_AFTER_NOT_DURATION = re.compile(
    r"\W*(?:f/u|fu\b|follow[- ]?up|surveillance|post[- ]?op|check|interval|scan|mri|pregnan|gestation|postpartum|old)"
)
_DAYS = {"mi": 1 / 1440, "h": 1 / 24, "d": 1.0, "w": 7.0, "m": 30.0, "y": 365.0}
_LAST = {"week": 7.0, "wk": 7.0, "month": 30.0, "mo": 30.0, "year": 365.0, "yr": 365.0}
_LAST |= dict.fromkeys(("summer", "winter", "spring", "fall"), 180.0)
_WORDS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "many": 5}
_EGFR = re.compile(
    r"\be?gfr\s*(?:(?:is|was|of|=|:|now|today|last|~|approx\.?)\s*)*(?P<sign>[<>]=?)?\s*(?P<number>\d{1,3})(?!\d|\s*/\s*\d)"
)
_CREATININE = re.compile(
    r"\b(?:creat(?:inine)?|s?cr)\s*(?:(?:is|was|of|=|:|now|today|up to|~)\s*)*(?P<number>\d{1,2}\.\d{1,2}|\d)(?![\d/])"
)
_WEEKS = re.compile(
    r"(?<![\w.])(?P<weeks>\d{1,2})(?:\s*\+\s*\d|\s+\d/7)?\s*-?(?:weeks?|wks?|wk|w)\s*(?:\d\s*d(?:ays?)?\s*)?"
    r"(?=pregnan|gestation|gest\b|ga\b|iup|gravid|preg\b|along)"
    r"|(?:pregnan\w*|gravid|iup|g\d\s?p\d\w*|gestation(?:al age)?|ga)\W{0,3}(?:at|of|now|x|@|,|approx\.?|~)?\s*"
    r"(?P<weeks2>\d{1,2})(?:\s*\+\s*\d|\s+\d/7)?\s*-?(?:weeks?|wks?|wk|w)\b"
)
_LEVEL = re.compile(
    r"(?<![\w.])(?P<letter>[ctls])\s?(?P<number>\d{1,2})(?:\s?[-/]\s?(?P<letter2>[ctls])?\s?\d{1,2})?(?![\w.%])"
)
_HIGHEST = {"c": 8, "t": 12, "l": 5, "s": 5}
_LEVEL_REGION = {"c": "cervical spine", "t": "thoracic spine", "l": "lumbar spine", "s": "lumbar spine"}
_NOT_A_LEVEL = re.compile(
    r"\b(?:s[1-4] (?:heart )?sounds?|t[12][ -]*(?:w\b|weighted|signal|hyper\w*|hypo\w*|flair|bright|lesions?|dm\b|sequence)"
    r"|dm\s?t?[12]\b|t[1-4][a-c]?\s?n\d|free t[34]|low t\b)"
)


@dataclass(frozen=True)
class SaidPerson:
    """A person as the text describes one.

    Attributes:
        age_years: Stated age; None when only a sex is stated.
        sex: `male`, `female` or None.
        words: The words that state it.
    """

    age_years: float | None
    sex: str | None
    words: str


def said_persons(text: str) -> tuple[SaidPerson, ...]:
    """Return the age and sex that a normalised text states of the person whom it is about, not of relatives."""
    found: list[SaidPerson] = []
    taken: list[tuple[int, int]] = []
    for match in _AGE.finditer(text):
        before = text[max(0, match.start() - 60) : match.start()]
        if _NOT_NOW.search(before) or _RELATIVE.search(before):
            taken.append(match.span())
            continue
        sex = _SEX_AFTER_AGE.match(text, match.end())
        end = sex.end() if sex else match.end()
        taken.append((match.start(), end))
        words = text[match.start() : end]
        found.append(SaidPerson(_years(match), _sex(sex.group("sex")) if sex else None, words.strip()))
    for match in _AGE_SEX.finditer(text):
        found.append(SaidPerson(float(match.group("number")), _sex(match.group("sex")), match.group().strip()))
    for match in _SEX.finditer(text):
        before = text[max(0, match.start() - 60) : match.start()]
        if any(a <= match.start() < b for a, b in taken) or _RELATIVE.search(before):
            continue
        found.append(SaidPerson(None, str(match.lastgroup), match.group()))
    return tuple(found)


def _years(match: re.Match[str]) -> float:
    number, unit = float(match.group("number")), match.group("unit")
    if unit.startswith("m"):
        return number / 12
    if unit.startswith("w"):
        return number / 52
    return number / 365 if unit.startswith("d") else number


def _sex(word: str) -> str:
    return "male" if word in {"m", "male", "man", "boy", "gentleman"} else "female"


def durations_days(text: str) -> tuple[float, ...]:
    """Return how long something lasts or how long ago it was, in days, for each duration that the text states."""
    found = [
        _number(match.group("number")) * _DAYS["mi" if match.group("unit").startswith("mi") else match.group("unit")[0]]
        for match in _DURATION.finditer(text)
        if _is_duration(text, match)
    ]
    found += [
        _LAST[m.group(1)]
        for m in re.finditer(r"\b(?:last|past) (week|wk|month|mo|year|yr|summer|winter|spring|fall)\b", text)
    ]
    found += [1.0 for _ in re.finditer(r"\b(?:yesterday|last night|overnight)\b", text)]
    found += [
        365.0 * 3 for _ in re.finditer(r"\b(?:for|x|many) (?:years|decades)\b|\blong[- ]?standing\b|\blifelong\b", text)
    ]
    return tuple(found)


def _is_duration(text: str, match: re.Match[str]) -> bool:
    before, after = text[max(0, match.start() - 16) : match.start()], text[match.end() : match.end() + 20]
    if (
        _NOT_DURATION.search(before)
        or _AFTER_NOT_DURATION.match(after)
        or _HISTORY.search(text[max(0, match.start() - 40) : match.start()])
    ):
        return False
    if match.group("unit") in {"m", "y", "w", "d", "h"} and not match.group("number")[0].isdigit():
        return False
    # "3 m" may be metres or a male: only after x, for, ~ or before ago.
    if match.group("unit") in {"m", "y"}:
        return bool(re.search(r"(?:x|for|~|past|last)\s*$", before) or after.lstrip().startswith("ago"))
    return True


def _number(word: str) -> float:
    bare = word.strip()
    if bare[0].isdigit():
        return float(bare)
    return float(_WORDS.get(bare, 3))


@dataclass(frozen=True)
class SaidLab:
    """A laboratory value that stands in the text; its date is not known."""

    value: float
    words: str


def said_egfr(text: str) -> SaidLab | None:
    """Return the last eGFR that the text states, mL/min/1.73 m2; `<15` counts as just below."""
    found = list(_EGFR.finditer(text))
    if not found:
        return None
    last = found[-1]
    number = float(last.group("number"))
    sign = last.group("sign") or ""
    return SaidLab(number - 1 if sign == "<" else number, last.group())


def said_creatinine(text: str) -> SaidLab | None:
    """Return the last creatinine that the text states, mg/dL."""
    found = list(_CREATININE.finditer(text))
    return SaidLab(float(found[-1].group("number")), found[-1].group()) if found else None


def said_weeks(text: str) -> int | None:
    """Return the weeks of pregnancy that the text states."""
    found = _WEEKS.search(text)
    if found is None:
        return None
    weeks = int(found.group("weeks") or found.group("weeks2"))
    return weeks if 1 <= weeks <= 43 else None


_HISTORY = re.compile(r"\b(?:hx|h/o|history of|pmh\w*|prior|previous|outside)\b[^,;.]*$")
_PAST = re.compile(r"\b(?:hx|h/o|history of|s/p|prior|previous|old|remote|status post)\b[^,;.]*$")


def spinal_levels(text: str) -> tuple[str, ...]:
    """Return the regions of the spine whose levels (C5-6, T10, L4/5, S1) the text names as a present matter."""
    barred = [m.span() for m in _NOT_A_LEVEL.finditer(text)]
    regions = [
        _LEVEL_REGION[match.group("letter")]
        for match in _LEVEL.finditer(text)
        if 1 <= int(match.group("number")) <= _HIGHEST[match.group("letter")]
        and not any(a <= match.start() < b for a, b in barred)
        and not _is_tumour_stage(match, text)
        and not _PAST.search(text[max(0, match.start() - 30) : match.start()])
    ]
    return tuple(dict.fromkeys(regions))


def _is_tumour_stage(match: re.Match[str], text: str) -> bool:
    """Return whether a bare T1 or T2 stands where it may be an MR weighting or a stage, not a vertebra."""
    if match.group("letter") != "t" or match.group(0).count("-") or int(match.group("number")) > 2:
        return False
    around = text[match.end() : match.end() + 24] + text[max(0, match.start() - 24) : match.start()]
    return not re.search(r"fx|fracture|vertebra|level|disc|compress|lesion|body|spine|sensory|myelo", around)
