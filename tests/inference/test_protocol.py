"""What a caller of the Open Inference Protocol meets: wrong requests first, then answers in both forms."""

import json
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arcuate.inference import framing, protocol
from arcuate.inference.domain import ModelDescription, TensorSpec
from arcuate.kernel.errors import ArcuateError, BadInput

URL = "/v2/models/brain-finder"
SMALL = ModelDescription(
    "small",
    "1",
    (TensorSpec("a", "FP32", (-1, 2)),),
    (TensorSpec("b", "UINT8", (-1, 2)), TensorSpec("c", "INT64", (2,))),
    {},
    {},
)


def body(**changes: Any) -> bytes:
    tensor = {"name": "a", "datatype": "FP32", "shape": [1, 2], "data": [1.5, 2]}
    return json.dumps({"inputs": [{**tensor, **changes}]}).encode()


@pytest.mark.parametrize(
    "wrong",
    [
        b"", b"{not json", b"[]", b"{}", b'{"inputs": 7}', b'{"inputs": []}', b'{"inputs": [3]}', b"\xff\xfe", b"[" * 100_000,
        b'{"inputs": [{"name": "a", "datatype": "FP32", "shape": [1, 2], "data": [NaN, 1]}]}',
        body(datatype="FLOAT99"), body(shape=[1, 3]), body(shape=[-1, 2]), body(shape=[1 << 40]), body(shape="x"), body(data=None),
        body(data=["x", "y"]), body(data=[[1], [2, 3]]), body(data=[True, False]), body(name=4), body(parameters=[]),
        body(parameters={"binary_data_size": 8}), body(parameters={"binary_data_size": -1}), body(datatype="UINT8", data=[300, 1]),
        body(datatype="INT64", data=[1.5, 1]),
    ],
)  # fmt: skip
def test_a_wrong_request_is_told_so(wrong: bytes) -> None:
    with pytest.raises(BadInput):
        protocol.parse_request(wrong, None, SMALL)


@pytest.mark.parametrize("length", ["-1", "x", "999999", "²"])
def test_a_wrong_head_length_is_told_so(length: str) -> None:
    with pytest.raises(BadInput):
        protocol.parse_request(body(), length, SMALL)


@given(st.binary(max_size=300), st.one_of(st.none(), st.text(max_size=4)))
def test_no_body_makes_anything_but_a_clear_error(raw: bytes, length: str | None) -> None:
    try:
        protocol.parse_request(raw, length, SMALL)
    except ArcuateError as error:
        assert str(error)


@given(
    st.lists(st.tuples(st.integers(0, 255), st.integers(0, 255)), min_size=1, max_size=5), st.booleans(), st.booleans()
)
def test_json_and_binary_answers_say_the_same(rows: list[tuple[int, int]], first: bool, second: bool) -> None:
    found = {"b": np.array(rows, np.uint8), "c": np.array([-5, 1 << 60], np.int64)}
    request = protocol.InferRequest("r", {}, {"b": first, "c": second})
    parts, size = protocol.answer(SMALL, request, found)
    raw = b"".join(parts)
    told = json.loads(raw[:size])
    assert told["id"] == "r" and [o["name"] for o in told["outputs"]] == ["b", "c"]
    at = len(raw) if size is None else size
    for entry in told["outputs"]:
        expected = found[entry["name"]]
        if "data" in entry:
            values = np.array(entry["data"], expected.dtype)
        else:
            values = np.frombuffer(raw, expected.dtype, expected.size, at)
            at += entry["parameters"]["binary_data_size"]
        assert (values.reshape(entry["shape"]) == expected).all()
    assert at == len(raw)


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_a_broken_frame_of_the_engine_is_noticed(head: bytes, tensors: bytes) -> None:
    with pytest.raises(framing.BrokenFrame):
        framing.unpacked(head, tensors)


def test_frames_carry_tensors_unchanged() -> None:
    sent = {
        "x": np.arange(6, dtype=np.float32).reshape(2, 3),
        "none": np.zeros((0, 4), np.uint8),
        "one": np.array(7, np.int64),
    }
    raw = b"".join(bytes(part) for part in framing.packed({"op": "infer"}, sent))
    head, size = framing.sizes(raw[: framing.PREFIX.size])
    start = framing.PREFIX.size
    told, got = framing.unpacked(raw[start : start + head], raw[start + head :])
    assert told == {"op": "infer"} and len(raw) == start + head + size
    assert all((got[name] == tensor).all() and got[name].shape == tensor.shape for name, tensor in sent.items())


async def test_unknown_models_and_versions_are_not_found(http: httpx.AsyncClient) -> None:
    for path in ("/v2/models/none", "/v2/models/none/ready", f"{URL}/versions/none", f"{URL}/versions/none/ready"):
        answer = await http.get(path)
        assert answer.status_code == 404 and isinstance(answer.json()["error"], str)
    assert (await http.post("/v2/models/none/infer", content=b"{}")).status_code == 404


async def test_wrong_tensors_are_refused_by_the_room(http: httpx.AsyncClient) -> None:
    spec = (await http.get(URL)).json()["inputs"][0]
    shape, count = spec["shape"], int(np.prod(spec["shape"]))
    good = {"name": "image", "datatype": "FP32", "shape": shape, "data": [0] * count}
    for change in ({"name": "x"}, {"datatype": "INT32"}, {"shape": shape[::-1]}, {"shape": shape[:-1]}):
        answer = await http.post(f"{URL}/infer", json={"inputs": [{**good, **change}]})
        assert 400 <= answer.status_code < 500 and answer.json()["error"], change
    unknown = {"inputs": [good], "outputs": [{"name": "no-such"}]}
    assert (await http.post(f"{URL}/infer", json=unknown)).status_code == 400


async def test_a_caller_without_a_token_may_look_but_not_infer(http: httpx.AsyncClient) -> None:
    async with httpx.AsyncClient(transport=http._transport, base_url="http://house") as stranger:
        assert (await stranger.get("/v2/health/live")).status_code == 200
        assert (await stranger.get(URL)).json()["name"] == "brain-finder"
        refused = await stranger.post(f"{URL}/infer", content=b"{}")
        assert refused.status_code == 401 and refused.json()["error"]
