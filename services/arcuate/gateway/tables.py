"""Tables of the gateway: the journal, what became of each message, what waits, what goes out."""

from datetime import datetime

from sqlalchemy import Index, LargeBinary, false, text
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from arcuate.kernel.db import UtcDateTime
from arcuate.kernel.work import WorkTable


class Base(SQLModel, registry=registry()):
    """Tables of this room."""


class Frame(Base, table=True):
    """The journal: one row a frame, bytes as received, in the order of arrival. Rows are never changed but for `resends`,
    `unread` and the warning that reading adds.

    Attributes:
        raw: The bytes; None when they lie in the file `spool`.
        resend_key: Sender, MSH-10 and content hash while a repetition counts as one; unique.
        answer: What was sent back, as it went over the wire.
        unread: What it holds has not been read yet (`sorter`): no message row, no work.
    """

    __tablename__ = "frame"
    number: int | None = Field(default=None, primary_key=True, sa_column_kwargs={"autoincrement": True})
    received: datetime = Field(sa_type=UtcDateTime, index=True)
    peer: str
    profile: str
    sender: str
    control_id: str
    kind: str
    size: int
    content_hash: str
    resend_key: str | None = Field(default=None, unique=True)
    raw: bytes | None = Field(default=None, sa_type=LargeBinary)
    spool: str | None = None
    answer_code: str
    answer: bytes = Field(sa_type=LargeBinary)
    warning: str = ""
    resends: int = 0
    resent: datetime | None = Field(default=None, sa_type=UtcDateTime)
    unread: bool = Field(default=True, sa_column_kwargs={"server_default": false()})
    __table_args__ = (
        Index("ix_frame_sender", "sender", "control_id"),
        Index("ix_frame_sender_number", "sender", "number"),
        Index("ix_frame_unread", "number", sqlite_where=text("unread"), postgresql_where=text("unread")),
    )


class Message(Base, table=True):
    """What became of one message of a frame.

    Attributes:
        position: 1 for the first message of the frame.
        cause: Short words by which the error queue groups.
        made: What it became, in words.
        orders: Tokens of the orders that it is about, one a line.
        edited: The copy that was replayed instead of the received bytes.
        round: Counts replays and second looks, for the identity of the transaction.
    """

    __tablename__ = "message"
    id: int | None = Field(default=None, primary_key=True)
    frame: int = Field(foreign_key="frame.number", index=True)
    position: int = 1
    sender: str
    kind: str
    state: str
    cause: str = ""
    reason: str = ""
    location: str = ""
    condition: str = ""
    made: str = ""
    note: str = ""
    orders: str = ""
    charset: str = ""
    edited: bytes | None = Field(default=None, sa_type=LargeBinary)
    round: int = 0
    changed: datetime = Field(sa_type=UtcDateTime)
    changed_by: str = ""
    __table_args__ = (Index("ix_message_state", "state", "changed"), Index("ix_message_sender", "sender", "state"))


class Waiting(Base, table=True):
    """A message waits for the order with this token."""

    __tablename__ = "waiting"
    token: str = Field(primary_key=True)
    message: int = Field(primary_key=True, foreign_key="message.id", index=True)
    kind: str
    event_at: datetime = Field(sa_type=UtcDateTime)
    expires: datetime = Field(sa_type=UtcDateTime, index=True)


class Mark(Base, table=True):
    """The newest event that was applied under a key."""

    __tablename__ = "mark"
    key: str = Field(primary_key=True)
    event_at: datetime = Field(sa_type=UtcDateTime)
    message: int


class Transport(Base, table=True):
    """What happened on connections beside whole frames: frames that did not end, bytes outside frames, refused connections."""

    __tablename__ = "transport"
    id: int | None = Field(default=None, primary_key=True)
    at: datetime = Field(sa_type=UtcDateTime, index=True)
    peer: str
    kind: str
    size: int
    raw: bytes = Field(sa_type=LargeBinary)


class Outgoing(Base, table=True):
    """A message that goes out.

    Attributes:
        dedupe: Receiver, resource and content: a change that says nothing new is not sent.
        key: Whose chain it belongs to: after a parked one the others of the same chain wait.
        about: The resource that it carries, `Type/id`; `subject` and `based_on` (one a line) are its patient and orders.
        state: waiting, held (behind a parked one of its chain), accepted (commit acknowledgement only), delivered, parked, discarded.
    """

    __tablename__ = "outgoing"
    id: int | None = Field(default=None, primary_key=True)
    receiver: str
    kind: str
    dedupe: str = Field(unique=True)
    key: str
    about: str
    subject: str = ""
    based_on: str = ""
    control_id: str = Field(unique=True)
    raw: bytes = Field(sa_type=LargeBinary)
    state: str
    tries: int = 0
    due: datetime = Field(sa_type=UtcDateTime)
    created: datetime = Field(sa_type=UtcDateTime)
    sent: datetime | None = Field(default=None, sa_type=UtcDateTime)
    acknowledged: datetime | None = Field(default=None, sa_type=UtcDateTime)
    answer: bytes | None = Field(default=None, sa_type=LargeBinary)
    reason: str = ""
    changed_by: str = ""
    __table_args__ = (
        Index("ix_outgoing_queue", "receiver", "state", "id"),
        Index("ix_outgoing_chain", "receiver", "key", "state"),
    )


class Halt(Base, table=True):
    """Why nothing is sent: one row (id 1) after a restore, until a person lets it go."""

    __tablename__ = "halt"
    id: int | None = Field(default=None, primary_key=True)
    since: datetime = Field(sa_type=UtcDateTime)
    reason: str


class Cursor(Base, table=True):
    """How far the feed has been read, what the door has handed over, and which receivers there is an alert about."""

    __tablename__ = "cursor"
    name: str = Field(primary_key=True)
    value: int


work = WorkTable(Base.metadata)
