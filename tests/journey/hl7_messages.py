"""HL7 v2 messages as a RIS, a registration and a dictation of a synthetic department send them."""

DAY = "20260317"


def hl7(*segments: str) -> str:
    return "\r".join(segments) + "\r"


def msh(kind: str, number: str, at: str, sender: str = "RIS") -> str:
    return f"MSH|^~\\&|{sender}|SYNTH|ARCUATE|X|{DAY}{at}00+0100||{kind}|{number}|P|2.5.1"


def pid(number: str = "S0001", name: str = "Synthetic-0001^Ada", birth: str = "19500102") -> str:
    return f"PID|1||{number}^^^SYNTH^MR||{name}||{birth}|F"


def orc(accession: str, control: str = "NW", state: str = "SC", at: str = "0950") -> str:
    return f"ORC|{control}|P{accession}^RIS|{accession}^RIS||{state}||||{DAY}{at}00+0100|||1234^Referrer^Synthetic"


def obr(accession: str, set_id: int = 1) -> str:
    return (
        f"OBR|{set_id}|P{accession}^RIS|{accession}^RIS|MRBRAIN^MRI brain without contrast^L"
        f"|||||||||||||||{accession}|RP1|SPS1||||MR|||^^^{DAY}103000+0100^^R||||Memory loss, progressive, ? atrophy"
    )


def order(
    accession: str, control: str = "NW", state: str = "SC", message: str = "1", patient: str = pid(), at: str = "0950"
) -> str:
    return hl7(
        msh("ORM^O01^ORM_O01", f"{accession}-{message}", at),
        patient,
        "PV1|1|O|MRI",
        orc(accession, control, state, at),
        obr(accession),
    )


def final(
    accession: str, text: str, state: str = "F", patient: str = pid(), at: str = "1130", also: tuple[str, ...] = ()
) -> str:
    """A report of one order, or of several of which the first carries the text."""
    groups = [
        _answered(accession, 1, state, at), f"OBX|1|TX|MRBRAIN^Report^L||{text}||||||{state}",
        *(_answered(other, number, state, at) for number, other in enumerate(also, 2)),
    ]  # fmt: skip
    return hl7(msh("ORU^R01^ORU_R01", f"{accession}-{state}-{at}", at, "DICT"), patient, *groups)


def _answered(accession: str, set_id: int, state: str, at: str) -> str:
    return (
        f"OBR|{set_id}|P{accession}^RIS|{accession}^RIS|MRBRAIN^MRI brain without contrast^L|||{DAY}103000+0100|||||||||||"
        f"{accession}|RP1|SPS1||{DAY}{at}00+0100||MR|{state}"
    )


def booking(
    event: str, number: str, accession: str, start: str, status: str, patient: str = pid(), at: str = "0955"
) -> str:
    """SIU: a visit of 45 minutes; `start` is `YYYYMMDDHHMM`."""
    return hl7(
        msh(f"SIU^{event}^SIU_S12", f"{number}-{event}-{at}", at),
        f"SCH|{number}^RIS|{number}^RIS||||ROUTINE^Routine|MRBRAIN^MRI brain||45|min|^^^{start}00+0100|||||1234^Desk"
        f"||||1234^Desk|||||{status}|P{accession}^RIS|{accession}^RIS",
        patient,
        "RGS|1|A",
        f"AIS|1|A|MRBRAIN^MRI brain^L|{start}00+0100",
        f"AIL|1|A|MR1^^^SYNTH||||{start}00+0100",
    )


def merge(survivor: str, merged: str, at: str = "1000") -> str:
    return hl7(
        msh("ADT^A40^ADT_A39", f"{merged}-A40", at, "ADT"),
        f"EVN|A40|{DAY}{at}00+0100",
        survivor,
        f"MRG|{merged}^^^SYNTH^MR",
    )


def unmerge(survivor: str, merged: str, number: str, at: str = "1015") -> str:
    """A37: both are persons of their own again."""
    return hl7(msh("ADT^A37^ADT_A37", f"{number}-A37", at, "ADT"), f"EVN|A37|{DAY}{at}00+0100", survivor, merged)
