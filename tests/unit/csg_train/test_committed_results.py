"""The comparisons in docs/results can be continued, and their tables say what their figures say."""

import json

import pytest

from csg.records import read_record
from csg_train.compare.plan import PLAN, Plan
from csg_train.compare.predictions import differences, pairs, sampled_methods
from csg_train.compare.references import notes
from csg_train.compare.results import new_comparison, read_results
from csg_train.compare.table import TABLE, write_table
from csg_train.recipe import parse_recipe
from csg_train.tasks import TASKS
from tests.conftest import ROOT

FOLDERS = sorted(path.parent for path in (ROOT / "docs" / "results").glob(f"*/{PLAN}"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_figures_and_table_agree(folder, tmp_path):
    plan = read_record(folder / PLAN, Plan, "restore it")
    base = parse_recipe(plan.recipe, str(folder / PLAN))
    methods = list(read_results(folder, base.task).values())
    rule = json.loads((folder / "comparison.json").read_text())["rule"]
    runs = sampled_methods(folder, methods)
    result = new_comparison(base, rule, methods, differences(runs), pairs(runs))
    score = next(iter(TASKS[base.task].scores.values()))
    write_table(tmp_path, base, result, notes(folder, score))
    assert (tmp_path / TABLE).read_text() == (folder / TABLE).read_text()
