"""Settings of the gateway."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from arcuate.kernel.settings import RoomSettings, room_config

MIB = 1024 * 1024


class Receiver(BaseModel, frozen=True):
    """One system that gets our messages.

    Attributes:
        name: How people call it; also the key of its queue.
        kind: `dictation` gets drafts; `report` gets signed reports; `ris` gets signed reports and what our pages ask for.
        also: What it gets beside that: `SIU` what changes of bookings at our doors, `ORM` or `OMG` how far an order is (ORC-1 SC), `MDM` each
            signed report as a document with a PDF, `ORU` how far an order is as results without values (OBR-25 S, I, R, X).
        own_number: Where our own number of a booking stands that was made here and has none of theirs: `filler` (SCH-2: we keep the book) or
            `placer` (SCH-1: they keep it).
    """

    name: str = Field(pattern=r"^[A-Za-z0-9 _.-]{1,40}$")
    kind: Literal["dictation", "report", "ris"]
    host: str
    port: int = Field(ge=1, le=65535)
    also: tuple[Literal["SIU", "ORM", "OMG", "ORU", "MDM"], ...] = ()
    own_number: Literal["filler", "placer"] = "filler"
    application: str = ""
    facility: str = ""


class GatewaySettings(RoomSettings):
    """The HL7 door, its limits, and who gets our messages."""

    model_config = room_config("gateway")

    host: Annotated[str, "Address on which HL7 messages are taken; loopback unless you change it."] = "127.0.0.1"
    port: Annotated[int, "Port on which HL7 messages are taken (MLLP); 0 takes a free one."] = 2575
    processed_bytes: Annotated[int, "Largest message in bytes that is processed."] = 8 * MIB
    spooled_bytes: Annotated[int, "Largest message in bytes that is kept; a larger one is refused."] = 64 * MIB
    frame_s: Annotated[float, "Seconds within which a begun message must end."] = 30.0
    idle_s: Annotated[float, "Seconds after which an idle connection is closed."] = 600.0
    pause_s: Annotated[
        float, "Seconds of silence after which a message without its last carriage return counts as complete."
    ] = 1.0
    connections: Annotated[int, "Most HL7 connections at a time."] = 64
    connections_per_address: Annotated[int, "Most HL7 connections from one address."] = 16
    resend_days: Annotated[float, "Days within which a repeated message is recognised as one."] = 7.0
    unmatched_days: Annotated[float, "Days that a result waits for its order."] = 7.0
    cancel_hours: Annotated[float, "Hours that a cancellation waits for its order."] = 72.0
    profiles_dir: Annotated[
        Path | None, "Folder of the site's own sender profiles (TOML); they come before the default profile."
    ] = None
    receivers: Annotated[
        tuple[Receiver, ...],
        'Systems that get our messages, as JSON: [{"name":"dictation","kind":"dictation","host":"127.0.0.1","port":2576}].',
    ] = ()
    send_timeout_s: Annotated[float, "Seconds to wait for a receiver's acknowledgement."] = 30.0
    send_tries: Annotated[int, "Refusals (AR, CE) after which an outgoing message waits for a person."] = 5
    send_backoff_s: Annotated[float, "Longest pause in seconds between tries to reach a receiver."] = 60.0
    alert_age_s: Annotated[float, "Seconds that an outgoing message may wait before one alert is raised."] = 600.0
    parallel: Annotated[int, "Messages that are mapped at the same time."] = 8
    mapping_s: Annotated[
        float,
        "Seconds of computing after which the mapping of one message is stopped; after three tries it waits for a person.",
    ] = 5.0
    ehr_url: Annotated[
        str, "Address of the EHR's FHIR R4 server, for example https://ehr.example/fhir; empty: it is not asked."
    ] = ""
    ehr_token_url: Annotated[
        str, "Where the EHR gives tokens; empty: as its .well-known/smart-configuration says (then on the same host)."
    ] = ""
    ehr_client_id: Annotated[
        str, "What the EHR calls us (SMART Backend Services); our public key is at /gateway/ehr/jwks. Empty: no token."
    ] = ""
    ehr_scopes: Annotated[str, "Scopes that are asked for at the EHR."] = "system/*.read"
    ehr_timeout_s: Annotated[float, "Seconds to wait for an answer of the EHR."] = 20.0
    ehr_fresh_h: Annotated[
        float, "Hours for which the EHR's answers about a patient count as fresh when another order is placed."
    ] = 12.0
    ehr_before_visit_h: Annotated[float, "Hours before a visit at which the EHR is asked once more."] = 24.0
    identifier_systems: Annotated[
        dict[str, str],
        "What other FHIR servers call a number space that HL7 messages name by another word, as JSON: "
        '{"http://hospital.example/mrn":"urn:arcuate:id:patient:HOSP"}.',
    ] = Field(default_factory=dict)
