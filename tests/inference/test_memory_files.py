"""Files of former answers that are used again: one that is held stays as it is, and no more are kept than is promised."""

import asyncio
import gc
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from arcuate.imaging.oip_client import OipClient
from arcuate.inference import framing, memory_files
from arcuate.inference.host import EngineHost, EngineSettings
from arcuate.inference.memory_files import AnswerFiles, MemoryFile
from arcuate.kernel.errors import Unavailable
from arcuate.kernel.log import get_logger

from .conftest import Opened
from .site_models import onnx_folder

ROWS = 50_000


def rows(value: float, count: int = ROWS) -> np.ndarray:
    return np.full((count, 2), value, np.float32)


def mapped() -> set[str]:
    """Inodes of the memory files that this process has mapped."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {line.split()[4] for line in lines if "memfd:arcuate-tensors" in line}


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Answers have to go by themselves, as they do in a house that is not collecting garbage just then."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A model that doubles any number of rows."""
    onnx_folder(tmp_path / "site", "doubling")
    return tmp_path / "site"


def written(value: int, size: int) -> MemoryFile:
    file = MemoryFile()
    file.write([bytes([value]) * (size // 2), memoryview(bytes([value]) * (size - size // 2))])
    return file


def test_a_file_is_free_only_when_no_view_of_its_answer_is_left() -> None:
    files, file = AnswerFiles(), written(7, 5000)
    answer = files.lent(file, 4000)
    tensor = np.frombuffer(answer[:3000], np.uint8)
    assert not tensor.flags.writeable and answer.readonly
    part = np.frombuffer(tensor.reshape(30, 100)[3:].data.cast("B")[5:], np.uint16, 10)[::2]
    del answer, tensor
    assert files.free() is None and (part == 0x0707).all()
    del part
    assert files.free() is file


def test_the_largest_free_file_is_offered_and_a_larger_answer_in_it_is_mapped_anew() -> None:
    files, file = AnswerFiles(), written(1, 5000)
    files.lent(written(2, 3000), 3000)
    files.lent(file, 100)
    assert files.free() is file
    assert bytes(files.lent(file, 5000)) == b"\x01" * 5000


def test_no_more_is_kept_than_promised_and_answers_that_are_held_outlive_their_files(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory_files, "KEPT_BYTES", 100_000)
    files = AnswerFiles()
    before = mapped()
    held = [files.lent(written(value, 30_000), 30_000) for value in range(6)]
    assert all(bytes(answer) == bytes([value]) * 30_000 for value, answer in enumerate(held))
    del held
    assert len(mapped() - before) == 3
    files.lent(written(9, 100_001), 100_001)
    assert len(mapped() - before) == 3
    for value in range(9):
        files.lent(written(value, 10), 10)
    assert len(mapped() - before) <= memory_files.KEPT_FILES


def test_a_frame_without_the_bytes_that_it_states_is_broken() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        framing.shared({}, {"x": np.zeros(10, np.uint8)}, theirs, MemoryFile())
        with pytest.raises(framing.BrokenFrame, match="11 bytes"):
            framing.taken(ours, 11)
        theirs.send(b"a")
        with pytest.raises(framing.BrokenFrame):
            framing.taken(ours, 1)


@pytest.mark.usefixtures("no_collector")
async def test_an_answer_that_is_held_does_not_change_and_the_pages_of_others_are_used_again(
    opened: Opened, site: Path
) -> None:
    async with opened(site) as house:
        client = OipClient(house.contexts["inference"].http)
        held = (await client("doubling", {"image": rows(1)}))["twice"]
        first = mapped()
        for value in range(2, 8):
            count = ROWS - value if value % 2 else ROWS // value
            assert ((await client("doubling", {"image": rows(value, count)}))["twice"] == rows(2 * value, count)).all()
            assert (held == 2).all()
        pages = mapped()
        assert first < pages and len(pages) <= len(first) + 2
        for value in (8, 9):
            assert ((await client("doubling", {"image": rows(value, 10)}))["twice"] == 2 * value).all()
        assert mapped() == pages and (held == 2).all()
        larger = (await client("doubling", {"image": rows(3, 3 * ROWS)}))["twice"]
        assert larger.shape == (3 * ROWS, 2) and (larger == 6).all() and (held == 2).all()
    assert (held == 2).all() and (larger == 6).all()


async def test_answers_of_callers_at_once_are_their_own(opened: Opened, site: Path) -> None:
    async with opened(site) as house:
        client = OipClient(house.contexts["inference"].http)
        kept: list[np.ndarray] = []
        for turn in range(4):
            asked = [(10 * turn + n, ROWS - 100 * n) for n in range(7)]
            found = await asyncio.gather(*(client("doubling", {"image": rows(value, n)}) for value, n in asked))
            for (value, count), answer in zip(asked, found, strict=True):
                assert answer["twice"].shape == (count, 2) and (answer["twice"] == 2 * value).all()
            kept.append(found[turn]["twice"])
        assert [float(answer.min()) for answer in kept] == [float(answer.max()) for answer in kept] == [0, 22, 44, 66]


@pytest.mark.parametrize("by_cancelling", [True, False])
async def test_what_was_offered_to_a_process_that_was_ended_is_not_offered_again(
    site: Path, by_cancelling: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = EngineHost(site, EngineSettings("onnx", 1, 5, 60.0), get_logger("inference"))
    held = (await host.infer("doubling", {"image": rows(1)}, ["twice"]))["twice"]
    await host.infer("doubling", {"image": rows(2)}, ["twice"])
    offered, process = host._answers.free(), host._process
    assert offered is not None and process is not None and process.stdin is not None
    process.send_signal(signal.SIGSTOP)
    sent, write = asyncio.Event(), process.stdin.write
    monkeypatch.setattr(process.stdin, "write", lambda frame: (write(frame), sent.set()))
    asking = asyncio.create_task(host.infer("doubling", {"image": rows(3)}, ["twice"]))
    await sent.wait()
    if by_cancelling:
        asking.cancel()
    else:
        process.kill()
    with pytest.raises((Unavailable, asyncio.CancelledError)):
        await asking
    assert host._answers.free() is None and (held == 2).all()
    later = (await host.infer("doubling", {"image": rows(4)}, ["twice"]))["twice"]
    offered.write([b"?" * offered.size])
    assert (later == 8).all() and (held == 2).all()
    await host.stop()
