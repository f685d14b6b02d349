"""The process that touches files from outside: `python -m arcuate.imaging.parsing_process`.

One JSON object a line on standard input, one on standard output. It lowers its own memory limit before each task, so that a
hostile file costs this process at most, and never the house. `parsing.py` starts it, times it and replaces it.
"""

import contextlib
import gc
import json
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path

from pydicom.config import settings

from arcuate.imaging.decoding import nifti, pixels
from arcuate.imaging.domain import RefusalCode as Code
from arcuate.imaging.headers import Bad, Json, header, metadata


def answer(task: Json, limits: Json) -> Json:
    """Do one task; every failure becomes a reason."""
    kind = task.pop("task")
    verbs: dict[str, Callable[..., Json]] = {"header": header, "pixels": pixels, "nifti": nifti, "metadata": metadata}
    try:
        return {"ok": verbs[kind](**task, limits=limits)}
    except Bad as bad:
        return {"bad": [bad.code, bad.what, bad.todo]}
    except RecursionError:
        return {"bad": [Code.HOSTILE, "The header nests sequences deeper than any real image", "Do not use this file."]}
    except MemoryError:
        return {
            "bad": [Code.HOSTILE, "The file asks for more memory than any real image", "Do not use this file."],
            "worn": True,
        }
    except Exception as error:  # noqa: BLE001 - the edge of the process: bytes from outside can raise anything
        # Only the kind is told: texts of the library can hold values of the header.
        return {"bad": [Code.DAMAGED, f"The file cannot be read ({type(error).__name__})", "Send the image again."]}


def _limit(extra_bytes: int, idle: int) -> None:
    with contextlib.suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (idle + extra_bytes, resource.RLIM_INFINITY))


def main() -> None:
    """Serve tasks until standard input ends."""
    limits: Json = json.loads(sys.argv[1])
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # nothing that a library prints may enter the answers
    os.nice(5)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    settings.reading_validation_mode = 0  # values are checked one by one above
    idle = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    gc.freeze()  # what the libraries loaded stays; a header's objects are many and short-lived
    gc.set_threshold(50_000)
    out.write("{}\n")
    out.flush()
    for line in sys.stdin:
        task = json.loads(line)
        big = task["task"] in ("pixels", "nifti")
        _limit(limits["pixel_memory_bytes" if big else "header_memory_bytes"], idle)
        made = answer(task, limits)
        _limit(limits["pixel_memory_bytes"], idle)
        out.write(json.dumps(made) + "\n")
        out.flush()
        if made.get("worn"):
            return


if __name__ == "__main__":
    main()
