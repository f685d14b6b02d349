"""The remembered answer of a route is the answer that would have been built, whatever stands in the header."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from arcuate.gateway import domain, profile
from arcuate.gateway.domain import Finding, Verdict
from arcuate.gateway.route import Routes
from arcuate.kernel.hl7v2 import header

NOW = datetime(2026, 3, 17, 9, 0, 1, tzinfo=UTC)
_TEXT = st.binary(max_size=12).filter(lambda one: not set(one) & set(b"|\r\n\x0b\x1c"))
_TRICKY = st.sampled_from(
    [b"", b"\x01own\x01", b"\x01theirs\x01", b"16010101010101", b"AL", b"NE", b"ER", b"2.5.1", b"2.3", b"P"]
)
_FIELD = st.one_of(_TEXT, _TRICKY)


@given(
    st.lists(_FIELD, min_size=1, max_size=20),
    st.sampled_from([b"ORM^O01", b"ADT^A01^ADT_A01", b"ACK", b"ZZZ^Z01", b""]),
    st.sampled_from([b"^~\\&", b"^~\\&#", b"@~\\&", b"^", b"0000"]),
)
def test_a_remembered_answer_is_the_answer_that_is_built(fields: list[bytes], kind: bytes, encoding: bytes) -> None:
    values = [encoding, *fields]
    if len(values) > 7:
        values[7] = kind
    msh = header.read(b"MSH|" + b"|".join(values) + b"\rPID|1\r")
    if msh is None:
        return
    routes = Routes(profile.load())
    routes.of(msh)
    route = routes.of(msh)
    built = domain.answer(msh, Finding(Verdict.STORED), route.profile, "ab12cd34f", NOW)
    if route.ordinary:
        assert route.stored(msh, "ab12cd34f", NOW) == built


def test_frames_that_differ_in_what_an_answer_depends_on_share_no_route() -> None:
    base = b"MSH|^~\\&|A|B|C|D|2026||ORM^O01|1|P|2.5.1|9||AL|NE||UNICODE UTF-8\r"
    changes = [
        base.replace(b"|A|", b"|X|"), base.replace(b"ORM^O01", b"ORM^O02"), base.replace(b"|P|", b"|T|"), base.replace(b"2.5.1", b"2.3"),
        base.replace(b"|AL|", b"|ER|"), base.replace(b"UNICODE UTF-8", b"8859/1"),
    ]  # fmt: skip
    routes = Routes(profile.load())
    one = routes.of(header.read(base))
    assert routes.of(header.read(base.replace(b"|2026|", b"|2027|").replace(b"|1|P", b"|2|P"))) is one
    assert all(routes.of(header.read(change)) is not one for change in changes)
