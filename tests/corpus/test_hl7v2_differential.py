"""Every message of the corpus that hl7apy can read: both read the same value at the same place (see the kernel's differential test)."""

import os
import re
from pathlib import Path

from tests.kernel.test_hl7v2_differential import disagreements, theirs

from arcuate.kernel.hl7v2.message import Message, split

# Each 24th file in CI; the acceptance run reads all.
STEP = 1 if "ARCUATE_DIFFERENTIAL" in os.environ else 24


def test_both_read_the_same_values_in_the_corpus(shared: Path) -> None:
    compared, different = 0, []
    for path in sorted((shared / "data" / "hl7v2" / "messages").glob("*/*.hl7"))[::STEP]:
        for raw in split(path.read_bytes()).messages:
            ours = Message.parse(raw)
            if not ours.charset.readable or ours.context.delimiters.doubt or len(raw) > 200_000:
                continue
            # hl7apy takes nothing but CR; lines that continue a field are joined by us, and would be segments for it.
            text = re.sub(
                r"[\r\n]+", "\r", "".join(s.text.replace("\r", " ").replace("\n", " ") + "\r" for s in ours if s.id)
            )
            other = theirs(text)
            if other is None:
                continue
            compared += 1
            different += [f"{path.name} {place}" for place in disagreements(Message.parse(text.encode()), other)]
    print(f"{compared} messages compared, {len(different)} places differ")
    assert different == []
    assert compared > 500 / STEP
