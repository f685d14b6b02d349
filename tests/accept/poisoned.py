"""The gateway with its record as a program whose mapping has three faults, named by MSH-10: it ends the process, never ends, or takes all memory."""

import asyncio
import os
import sys
from functools import partialmethod
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.gateway import program

from arcuate.gateway.mapping import plan
from arcuate.kernel.log import configure_logging
from arcuate.kernel.work import Worker

_real = plan.apply
Worker.__init__ = partialmethod(Worker.__init__, lease_s=8.0)  # type: ignore[method-assign,assignment]  # the proof does not wait for minutes


def apply(use: str, context: plan.Context, standing: Any) -> Any:
    match context.message.value("MSH-10"):
        case "ends":
            os._exit(1)
        case "loops":
            while True:
                pass
        case "swallows":
            return bytearray(8 << 30)
    return _real(use, context, standing)


plan.apply = apply

if __name__ == "__main__":
    configure_logging()  # to standard error: standard output tells the port
    asyncio.run(program.main(Path(sys.argv[1]), ""))
