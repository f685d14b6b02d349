"""The command explains what is wrong and what to do; it never answers with a trace."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def arcuate(
    *arguments: str, zone: str | None = "Europe/Zurich", timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ARCUATE_")}
    if zone is not None:
        environment["ARCUATE_TIME_ZONE"] = zone
    command = [sys.executable, "-m", "arcuate", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, check=False)


@contextmanager
def up(data: Path, web: int, mllp: int) -> Iterator[list[str]]:
    """Run `arcuate up` until it says ready; yields what it printed."""
    environment = {**os.environ, "ARCUATE_TIME_ZONE": "Europe/Zurich"}
    command = [
        sys.executable,
        "-m",
        "arcuate",
        "up",
        "--data",
        str(data),
        "--port",
        str(web),
        "--mllp-port",
        str(mllp),
        "--dicom-port",
        str(free_port()),
    ]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        lines = []
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip())
            if lines[-1] == "ready":
                break
        assert lines and lines[-1] == "ready", process.stderr.read() if process.stderr else ""
        yield lines
    finally:
        process.terminate()
        assert process.wait(40) == 0


def test_a_missing_or_unknown_time_zone_is_explained(tmp_path: Path) -> None:
    missing = arcuate("up", "--data", str(tmp_path), zone=None)
    unknown = arcuate("up", "--data", str(tmp_path), zone="Mars/Olympus")

    assert missing.returncode == unknown.returncode == 2
    assert "ARCUATE_TIME_ZONE" in missing.stderr and "Europe/Zurich" in missing.stderr
    assert "Mars/Olympus" in unknown.stderr
    assert "Traceback" not in missing.stderr + unknown.stderr


def test_a_busy_port_is_explained(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        answer = arcuate("up", "--data", str(tmp_path), "--port", str(port))

    assert answer.returncode == 2
    assert f"Port {port}" in answer.stderr and "--port" in answer.stderr


def test_a_demo_leaves_a_folder_with_other_data_alone(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("of a real house")

    answer = arcuate("demo", "--exit", "--data", str(tmp_path))

    assert answer.returncode == 2
    assert "no demo" in answer.stderr
    assert (tmp_path / "journal").read_text() == "of a real house"


def test_a_token_needs_a_house_and_a_known_role(tmp_path: Path) -> None:
    assert "arcuate up" in arcuate("token", "--role", "integration", "--data", str(tmp_path)).stderr
    assert "scheduler" in arcuate("token", "--role", "king", "--data", str(tmp_path)).stderr


def test_a_house_starts_is_entered_once_and_keeps_what_was_sent_byte_for_byte(tmp_path: Path) -> None:
    data, web, mllp = tmp_path / "data", free_port(), free_port()
    message = tmp_path / "order.hl7"
    message.write_bytes(b"MSH|^~\\&|RIS|X|A|B|20260317||ADT^A04|C1|P|2.5.1\nPID|1||7^^^X^MR||Doe^Jane\n")
    with up(data, web, mllp) as lines:
        [link] = [line.split()[-1] for line in lines if line.startswith("Sign in once")]
        assert re.fullmatch(rf"http://127.0.0.1:{web}/sign-in\?token=\S+", link)
        another = arcuate("signin", "--data", str(data)).stdout.strip()
        assert another != link and another.startswith(f"http://127.0.0.1:{web}/sign-in?token=")
        second = arcuate("up", "--data", str(data), "--port", str(free_port()))
        assert second.returncode == 2 and "in use" in second.stderr

        sent = arcuate("send", str(message), "--port", str(mllp))
        assert sent.stdout.splitlines()[-1].split() == ["AA", "1"]
        token = arcuate("token", "--role", "integration", "--data", str(data)).stdout.strip()
        headers = {"Authorization": f"Bearer {token}"}
        assert httpx.get(f"http://127.0.0.1:{web}/journey/cases", headers=headers).json()["cases"] == []
        assert httpx.get(f"http://127.0.0.1:{web}/journey/cases").status_code == 401
        exported = arcuate("journal", "export", str(tmp_path / "out"), "--data", str(data))

    assert exported.returncode == 0
    [file] = [path for path in (tmp_path / "out").iterdir() if path.is_file()]
    assert file.read_bytes() == message.read_bytes()
