import pytest

from csg.sizes import size_text

SIZES = [(0, "0 B"), (999, "999 B"), (1536, "2 kB"), (999_499, "999 kB"), (999_500, "1 MB"), (23_459_000, "23 MB")]
LARGE = [(999_600_000, "1.0 GB"), (3_100_000_000, "3.1 GB"), (999_960_000_000, "1.0 TB"), (5 * 10**15, "5000.0 TB")]


@pytest.mark.parametrize(("size", "text"), [*SIZES, *LARGE])
def test_a_size_is_said_in_the_largest_fitting_unit(size, text):
    assert size_text(size) == text
