"""What is said about a setting that does not exist: only settings are suggested that the recipe takes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csg.errors import UsageError
from csg_train.methods.settings import SETTINGS
from csg_train.methods.spec import METHOD_SYNONYMS
from csg_train.recipe import load_recipe
from csg_train.recipe.catalogue import RECIPES, task_settings
from csg_train.recipe.suggest import NOTES, SYNONYMS, guess_setting, unknown_setting

EMBEDDED = {"cls": "digits", "seg": "digit-scenes"}
NAMES = {task: {setting.name for setting in task_settings(task)} for task in RECIPES}
EVERY_NAME = sorted(NAMES["cls"] | NAMES["seg"])


@pytest.mark.parametrize("task", RECIPES)
def test_every_listed_setting_is_accepted(task):
    defaults = {one.name: one.default for one in task_settings(task) if not one.required}
    recipe = load_recipe(EMBEDDED[task], defaults | {"methods.drpc.styles": "paintings"})
    assert set(recipe.methods) == set(SETTINGS)


def mutated(name, place, change):
    """The name with a letter left out, doubled, replaced, or in another form."""
    at = place % len(name)
    return {
        "left out": name[:at] + name[at + 1 :],
        "doubled": name[:at] + name[at] + name[at:],
        "replaced": name[:at] + "x" + name[at + 1 :],
        "case": name.upper(),
        "hyphens": name.replace("_", "-"),
        "without group": name.rpartition(".")[2],
        "other group": f"optim.{name.rpartition('.')[2]}",
        "no dots": name.replace(".", "_"),
        "unchanged": name,
    }[change]


CHANGES = ("left out", "doubled", "replaced", "case", "hyphens", "without group", "other group", "no dots", "unchanged")


@given(
    st.sampled_from([*EVERY_NAME, *SYNONYMS, *METHOD_SYNONYMS, *NOTES]),
    st.integers(0, 60),
    st.sampled_from(CHANGES),
    st.sampled_from(list(RECIPES)),
    st.sampled_from(list(SETTINGS)),
)
@settings(deadline=None)
def test_what_is_suggested_is_accepted(name, place, change, task, method):
    wrong = mutated(name, place, change)
    if wrong not in NAMES[task]:
        assert set(guess_setting(wrong, task, method).meant) <= NAMES[task]
        assert "\n" not in str(unknown_setting(wrong, task, method))


@pytest.mark.parametrize("task", RECIPES)
@pytest.mark.parametrize("word", [*SYNONYMS, *METHOD_SYNONYMS])
def test_words_of_other_programs_lead_to_a_setting(word, task):
    guess = guess_setting(word, task, "csg")
    assert guess.meant or guess.elsewhere, word


@pytest.mark.parametrize(
    ("recipe", "setting", "message"),
    [
        ("digit-scenes", "augment.magnitude", "it belongs to classification, and the task is segmentation"),
        ("digits", "augment.scale", "it belongs to segmentation, and the task is classification"),
        ("digit-scenes", "augment.magnitud", "augment.magnitude belongs to classification"),
        ("digit-scenes", "data.size", r"it belongs to classification.*did you mean data\.crop\?"),
        ("digit-scenes", "img_size", r"did you mean data\.crop\?"),
        ("digits", "img_size", r"did you mean data\.size\?"),
        ("digits", "lr", r"did you mean optim\.lr_heads or optim\.lr_backbone\?"),
        ("digits", "method.learning_rate", r"did you mean optim\.lr_heads or optim\.lr_backbone\?"),
        ("digits", "momentum", r"did you mean optim\.momentum or methods\.csg\.momentum\?"),
        ("digits", "K", r"did you mean methods\.csg\.queue\?"),
        ("digits", "optm.batch", r"no setting optm\.batch; did you mean optim\.batch\?"),
        ("digits", "method.cap", "method csg: cap: .*cap belongs to asg and asg-l2o, and the method is csg"),
        ("digits", "method.wieght", "did you mean weight?"),
        ("digits", "gpu", "CUDA_VISIBLE_DEVICES"),
        ("digits", "zzz", "`csg config` lists all settings"),
    ],
)
def test_whose_setting_it_is_and_what_may_be_meant(recipe, setting, message):
    with pytest.raises(UsageError, match=message):
        load_recipe(recipe, {setting: 1})


def test_a_word_for_a_setting_of_other_methods_names_them():
    with pytest.raises(UsageError, match="temperature belongs to simclr, moco-v2 and csg, and the method is none"):
        load_recipe("digits", {"method": "none", "tau": 1})


@pytest.mark.parametrize("method", ["magic", ["csg"], 3, None])
def test_a_wrong_method_beside_a_wrong_setting_is_one_error(method):
    with pytest.raises(UsageError):
        load_recipe("digits", {"method": method, "tau": 1})
