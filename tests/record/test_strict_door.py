"""What the door does with bad JSON: one refusal, one reason, no crash."""

import time

from arcuate.kernel.auth import Role

from .record_world import Replica

BAD: list[tuple[bytes, str]] = [
    (b"", "structure"), (b"{", "structure"), (b"[]", "structure"), (b"null", "structure"), (b'"Patient"', "structure"),
    (b"1", "structure"),
    (b"{}", "structure"), (b"{'resourceType':'Patient'}", "structure"), (b'{"resourceType":"Patient",}', "structure"),
    (b'{"resourceType":"Patient"}{}', "structure"), (b'{"resourceType":"Patient"} x', "structure"),
    (b'{"resourceType":"Patient","resourceType":"Patient"}', "structure"),
    (b'{"resourceType":"Patient","active":true,"active":false}', "structure"),
    (b'{"resourceType":"Patient","name":[{"family":"A","family":"B"}]}', "structure"),
    (b'{"resourceType":"Patient","active":NaN}', "structure"), (b'{"resourceType":"Patient","active":Infinity}', "structure"),
    (b'{"resourceType":"Patient","active":-Infinity}', "structure"), (b'{"resourceType":"Patient","active":01}', "structure"),
    (b'{"resourceType":"Patient","active":1.}', "structure"), (b'{"resourceType":"Patient","active":.5}', "structure"),
    (b'{"resourceType":"Patient","active":+1}', "structure"), (b'{"resourceType":"Patient","active":1e}', "structure"),
    (b'{"resourceType":"Patient","active":0x1}', "structure"), (b'{"resourceType":"Patient","active":1e999999999}', "structure"),
    (b'{"resourceType":"Patient","active":' + b"9" * 5000 + b"}", "structure"),
    (b'{"resourceType":"Patient","active":True}', "structure"),
    (b'{"resourceType":"Patient","language":"\\ud800"}', "structure"),
    (b'{"resourceType":"Patient","language":"\\udc00\\ud800"}', "structure"),
    (b'{"resourceType":"Patient","language":"\\u0000"}', "structure"), (b'{"resourceType":"Patient","language":"\x00"}', "structure"),
    (b'{"resourceType":"Patient","language":"a\nb"}', "structure"), (b'{"resourceType":"Patient","\\u0000":1}', "structure"),
    (b'{"resourceType":"Patient","language":"\\x41"}', "structure"), (b'{"resourceType":"Patient","language":"\\u12"}', "structure"),
    (b'{"resourceType":"Patient","language":"\xff"}', "structure"), (b'{"resourceType":"Patient","language":"\xc0\x80"}', "structure"),
    (b'{"resourceType":"Patient","language":"\xed\xa0\x80"}', "structure"),
    (b'{"resourceType":"Patient","language":"\xf5\x80\x80\x80"}', "structure"),
    (b'\xef\xbb\xbf{"resourceType":"Patient"}', "structure"), ('{"resourceType":"Patient"}'.encode("utf-16"), "structure"),
    ('{"resourceType":"Patient"}'.encode("utf-32"), "structure"), (b"\x1f\x8b\x08\x00", "structure"),
    (b'{"resourceType":null}', "structure"), (b'{"resourceType":7}', "structure"), (b'{"resourceType":["Patient"]}', "structure"),
    (b'{"resourceType":"patient"}', "structure"), (b'{"resourceType":"Patient","name":null}', "structure"),
    (b'{"resourceType":"Patient","name":[]}', "structure"), (b'{"resourceType":"Patient","name":[null]}', "structure"),
    (b'{"resourceType":"Patient","name":[{}]}', "structure"), (b'{"resourceType":"Patient","name":{}}', "structure"),
    (b'{"resourceType":"Patient","name":["A"]}', "structure"), (b'{"resourceType":"Patient","birthDate":1980}', "structure"),
    (b'{"resourceType":"Patient","active":"true"}', "structure"), (b'{"resourceType":"Patient","language":""}', "structure"),
    (b'{"resourceType":"Patient","multipleBirthInteger":1.5}', "structure"),
    (b'{"resourceType":"Patient","multipleBirthInteger":true}', "structure"),
    (b'{"resourceType":"Patient","multipleBirthInteger":1,"multipleBirthBoolean":true}', "structure"),
    (b'{"resourceType":"Patient","a":' * 65 + b"1" + b"}" * 65, "too-costly"), (b"[" * 100_000, "too-costly"),
    (b'{"a":' * 100_000, "too-costly"), (b'{"resourceType":"Patient","extension":' + b"[" * 64 + b"]" * 64 + b"}", "too-costly"),
]  # fmt: skip


async def test_f029_bad_json_is_refused_with_its_reason(replica: Replica) -> None:
    http = replica.http(Role.INTEGRATION)

    for body, code in BAD:
        answer = await http.post("/fhir/Patient", content=body, headers={"Content-Type": "application/fhir+json"})

        shown = (body[:60], answer.text)
        assert (answer.status_code, answer.json()["resourceType"]) == (400, "OperationOutcome"), shown
        assert [code] == [issue["code"] for issue in answer.json()["issue"]], shown
        assert "Traceback" not in answer.text
    assert await replica.fhir().search("Patient") == []


async def test_f029_a_hundred_thousand_open_arrays_are_refused_at_once(replica: Replica) -> None:
    http = replica.http()
    headers = {"Content-Type": "application/fhir+json"}
    await http.post("/fhir/Patient", content=b"{}", headers=headers)
    times = []
    for _ in range(3):
        began = time.perf_counter()
        await http.post("/fhir/Patient", content=b"[" * 100_000, headers=headers)
        times.append(time.perf_counter() - began)

    assert min(times) < 0.1
