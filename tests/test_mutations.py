"""`scripts/mutations` can make each of its mistakes in the code as it is."""

from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
loader = SourceFileLoader("mutations", str(ROOT / "scripts/mutations"))
spec = spec_from_loader("mutations", loader)
assert spec
mutations = module_from_spec(spec)
loader.exec_module(mutations)


@pytest.mark.parametrize("mutation", mutations.MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mutation_finds_its_text_and_its_tests(mutation):
    assert mutations.misplaced(mutation) == ""
    assert mutation.instead not in (ROOT / mutation.file).read_text()
    assert all((ROOT / file).is_file() for file in mutation.tests)


def test_there_are_thirteen_and_check_runs_the_same_tier():
    assert len({mutation.name for mutation in mutations.MUTATIONS}) == 13
    assert mutations.SHORT in (ROOT / "scripts/check").read_text()
