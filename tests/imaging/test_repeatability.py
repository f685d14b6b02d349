"""Two scans of one person: what differs, what is missing, and what makes the case hard, in words."""

from dataclasses import replace

from arcuate.imaging import repeatability
from arcuate.imaging.derived import Measured, Model
from arcuate.imaging.repeatability import Scanned
from arcuate.kernel.codes import Laterality

MODEL = Model("brain-t1", "3", "ab", ())


def scanned(name: str, *ml: float, **said: object) -> Scanned:
    left, right, stem = ml
    measured = (
        Measured("hippocampus", Laterality.LEFT, left), Measured("hippocampus", Laterality.RIGHT, right),
        Measured("hippocampus", Laterality.BILATERAL, left + right), Measured("brainstem", None, stem),
    )  # fmt: skip
    return replace(Scanned(name, 1.0, measured, {}, (), 0.8, MODEL), **said)  # type: ignore[arg-type]


def test_a_structure_that_one_scan_lacks_is_told_with_its_reason_and_counts_in_no_mean() -> None:
    first, second = scanned("one", 3.0, 3.0, 20.0), scanned("two", 3.3, 3.0, 20.0)
    second = replace(second, measured=second.measured[:3], absent={"brainstem": "14 ml is not plausible."})
    made = repeatability.table(first, second)
    assert "- two: brainstem not measured: 14 ml is not plausible." in made
    assert "| hippocampus | left | 3.00 | 3.30 | +9.5 |" in made and "| brainstem" not in made
    assert "| **mean without sign above 2 mL** | 2 values | | | **4.8** |" in made and "above 10 mL" not in made


def test_thick_slices_and_warnings_make_it_a_hard_case_and_two_networks_make_it_none() -> None:
    first = scanned("one", 3.0, 3.0, 20.0, spacing_mm=4.8, warnings=("The brain reaches the edge.",))
    other = scanned("two", 3.0, 3.0, 20.0, model=Model("brain-any", "3", "ab", ()))
    assert "slices lie up to 4.8 mm apart" in repeatability.table(first, first)
    assert "- one and one: The brain reaches the edge." in repeatability.table(first, first)
    assert "this is no repetition" in repeatability.table(first, other)
    assert "hard case" not in repeatability.table(other, other)


def test_the_difference_turns_its_sign_with_the_order() -> None:
    assert repeatability.difference(9.0, 11.0) == 20 == -repeatability.difference(11.0, 9.0)
