"""Synthetic messages for tests."""


def order(
    accession: str = "ACC1", patient: str = "100", *, control: str = "NW", state: str = "", control_id: str = "1", at: str = "20260317100000",
    placer: str = "P1", name: str = "Doe^Jane", born: str = "19800101", more: str = "", when: str = "20260318110000",
) -> str:  # fmt: skip
    return (
        f"MSH|^~\\&|RIS|HOSP|ARCUATE|NEURO|{at}||ORM^O01^ORM_O01|{control_id}|P|2.5.1\r"
        f"PID|1||{patient}^^^HOSP^MR||{name}||{born}|F\r"
        f"ORC|{control}|{placer}^RIS|{accession}^RIS||{state}||||{at}|||77^Referrer^Robin\r"
        f"OBR|1|{placer}^RIS|{accession}^RIS|MRBR^MR Brain^L||||||||||||||{accession}|RP1|SPS1||||MR|||^^^{when}^^R||||^Headache, R/O MS\r"
        f"{more}"
    )


def booking(
    event: str = "S12", number: str = "B1", patient: str = "100", *, start: str = "20260318110000", status: str = "Booked",
    control_id: str = "10", at: str = "20260317101000", accession: str = "ACC1", name: str = "Doe^Jane", born: str = "19800101",
) -> str:  # fmt: skip
    return (
        f"MSH|^~\\&|RIS|HOSP|ARCUATE|NEURO|{at}||SIU^{event}^SIU_S12|{control_id}|P|2.5.1\r"
        f"SCH|P{number}^RIS|{number}^RIS||||REASON||MR|30|min|^^M30^{start}||||||||||||||{status}|P1^RIS|{accession}^RIS\r"
        f"PID|1||{patient}^^^HOSP^MR||{name}||{born}|F\r"
        "RGS|1\r"
        "AIS|1||MRBR^MR Brain^L\r"
        "AIL|1||MR1^^^HOSP\r"
    )


def registration(
    event: str = "A08",
    patient: str = "100",
    *,
    control_id: str = "20",
    pid: str = "",
    at: str = "20260317102000",
    visit: str = "",
) -> str:
    rest = pid or f"{patient}^^^HOSP^MR||Doe^Jane||19800101|F|||1 Main St^^Town^^8000^CH||0791234567^PRN^CP"
    return (
        f"MSH|^~\\&|ADT|HOSP|ARCUATE|NEURO|{at}||ADT^{event}^ADT_A01|{control_id}|P|2.5.1\r"
        f"EVN|{event}|{at}\r"
        f"PID|1||{rest}\r"
        f"PV1|1|O|MRI^^^HOSP||||||||||||||||{visit}\r"
    )


def merge(survivor: str, loser: str, *, control_id: str = "30", at: str = "20260317103000") -> str:
    return (
        f"MSH|^~\\&|ADT|HOSP|ARCUATE|NEURO|{at}||ADT^A40^ADT_A39|{control_id}|P|2.5.1\r"
        f"EVN|A40|{at}\r"
        f"PID|1||{survivor}^^^HOSP^MR||Doe^Jane||19800101|F\r"
        f"MRG|{loser}^^^HOSP^MR\r"
    )


def result(
    accession: str = "ACC1", patient: str = "100", *, status: str = "F", text: str = "Normal brain.", control_id: str = "40",
    at: str = "20260317120000", name: str = "Doe^Jane", born: str = "19800101", groups: str = "",
) -> str:  # fmt: skip
    lines = "".join(
        f"OBX|{n}|TX|18748-4^Diagnostic imaging study^LN||{line}||||||{status}\r"
        for n, line in enumerate(text.split("\n"), 1)
    )
    return (
        f"MSH|^~\\&|DICT|HOSP|ARCUATE|NEURO|{at}||ORU^R01^ORU_R01|{control_id}|P|2.5.1\r"
        f"PID|1||{patient}^^^HOSP^MR||{name}||{born}|F\r"
        f"OBR|1|P1^RIS|{accession}^RIS|MRBR^MR Brain^L|||20260317110000|||||||||||{accession}|RP1|SPS1||{at}|||{status}\r"
        f"{lines}{groups}"
    )
