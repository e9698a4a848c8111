import pytest
from timm.data.imagenet_info import ImageNetInfo

from nayer_cli.errors import InputError
from nayer_cli.images.class_order import is_assumed, match_classes


def match(own, wanted=None, num_classes=None):
    return match_classes(own, wanted, num_classes, "x.tar")


def test_names_decide_and_not_their_order():
    assert match(["bird", "cat", "ant"], ["cat", "ant", "bird"]) == [2, 0, 1]


def test_case_underscore_hyphen_and_white_space_do_not_count():
    assert match(["Fire_Truck", "t-shirt"], ["T shirt", "fire truck"]) == [1, 0]


def test_words_may_be_written_as_one():
    assert match(["ice bear", "Fire-Truck"], ["firetruck", "icebear"]) == [1, 0]


def test_an_order_is_assumed_where_one_side_alone_has_names():
    names, numbers, ids = ["cat", "dog"], ["0", "1"], ["n01440764", "n01443537"]
    assert is_assumed(names, None) and is_assumed(None, names) and is_assumed(["0", "dog"], None)
    assert not is_assumed(names, names) and not is_assumed(None, None)
    assert not is_assumed(numbers, None) and not is_assumed(ids, None)


def test_names_that_differ_only_in_case_match_exactly():
    assert match(["a", "A"], ["A", "a"]) == [1, 0]


def test_the_first_synonym_is_enough():
    assert match(["goldfish", "tench"], ["tench, Tinca tinca", "goldfish, Carassius auratus"]) == [1, 0]


def test_numbers_are_class_indices_whatever_the_text_order():
    own = sorted(str(i) for i in range(11))
    assert match(own) == [int(name) for name in own]
    assert match(["00", "01"], ["cat", "dog"]) == [0, 1]


def test_names_that_are_numbers_go_before_indices():
    assert match(["1", "2"], ["2", "1"]) == [1, 0]


def test_numbers_from_one_are_refused():
    with pytest.raises(InputError, match="go from 1 to 2, but class indices go from 0 to 1"):
        match(["1", "2"])


def test_without_names_the_order_of_the_data_counts():
    assert match(["a", "b", "c"], num_classes=3) == [0, 1, 2]


def test_another_number_of_classes_names_both_and_the_first_missing():
    with pytest.raises(InputError, match=r"has 2 classes, but the model has 3; .* is 'dog'"):
        match(["ant", "cat"], ["cat", "dog", "ant"])
    with pytest.raises(InputError, match="has 2 classes, but the model has 3"):
        match(["ant", "cat"], num_classes=3)


def test_a_mismatch_is_an_error_that_shows_both_sides():
    with pytest.raises(InputError, match="no 'dog', and the model has no 'wolf'"):
        match(["cat", "wolf"], ["cat", "dog"])


def message(own, wanted=None, num_classes=None) -> str:
    with pytest.raises(InputError) as caught:
        match(own, wanted, num_classes)
    assert caught.value.hint.startswith("give the data's classes the names of the model's, or name its folders by")
    return str(caught.value)


def test_messages_say_what_differs():
    mismatch = "the classes of x.tar do not match the model's: "
    assert message(["cat", "wolf"], ["cat", "dog"]) == mismatch + "it has no 'dog', and the model has no 'wolf'"
    four, five = ["a", "b", "c", "d"], ["v", "w", "x", "y", "z"]
    assert message([*four[:3], "z"], four) == mismatch + "it has no 'd', and the model has no 'z'"
    assert message(five, [*four, "v"]) == mismatch + (
        "it has no 'a', 'b', 'c' and 1 more, and the model has no 'w', 'x', 'y' and 1 more"
    )
    assert message(["a", "b", "c"], ["x", "y", "z"]) == mismatch + (
        "it has no 'x', 'y', 'z', and the model has no 'a', 'b', 'c'"
    )
    assert message(["a", "a"], ["a", "b"]) == mismatch + "it has no 'b'"
    assert message(["a", "a", "b"], ["a", "b", "b"]) == mismatch + "several classes have the same name"
    assert message(["7", "9", "8"]) == (
        "the numbered classes of x.tar go from 7 to 9, but class indices go from 0 to 2"
    )


def test_another_number_of_classes_names_the_first_missing_where_some_match():
    count = "x.tar has 2 classes, but the model has 3"
    assert message(["ant", "cat"], ["cat", "dog", "ant"]) == f"{count}; the first without data is 'dog'"
    assert message(["ant", "cat"], ["x", "y", "z"]) == message(["ant", "cat"], num_classes=3) == count
    assert message(["ant", "cat"], ["ant"]) == "x.tar has 2 classes, but the model has 1"


def test_folders_are_numbers_or_wordnet_ids_only_if_all_of_them_are():
    assert match(["1", "0b"]) == [0, 1]
    assert match(["n01440764", "other"]) == match(["n0144076", "n0144350"]) == [0, 1]


def test_unknown_wordnet_ids_do_not_match_names():
    assert "it has no 'tench', 'goldfish', and" in message(["n99999999", "n01443537"], ["tench", "goldfish"])


def test_equal_names_match_only_by_position():
    assert match(["crane", "crane"], ["crane", "crane"]) == [0, 1]
    with pytest.raises(InputError, match="same name"):
        match(["crane", "crane", "owl"], ["owl", "crane", "crane"])


def test_wordnet_folders_of_imagenet_match_its_descriptions():
    info = ImageNetInfo("imagenet-1k")
    assert match(sorted(info.label_names()), info.label_descriptions()) == list(range(1000))
    detailed = [info.index_to_description(i, detailed=i in (134, 517)) for i in range(1000)]
    assert match(sorted(info.label_names()), detailed) == list(range(1000))
    assert match(info.label_names()[::-1], detailed) == list(range(1000))[::-1]
    assert match(info.label_names()[::-1], num_classes=1000) == list(range(1000))[::-1]


def test_wordnet_folders_match_names_that_a_word_tells_apart():
    cranes = ["n02012849", "n03126707"]
    assert match(cranes, ["crane (machine)", "crane (bird)"]) == [1, 0]


def test_wordnet_folders_of_a_subset_match_by_their_names():
    assert match(["n01440764", "n01443537"], ["goldfish", "tench"]) == [1, 0]
    with pytest.raises(InputError, match="do not match"):
        match(["n01440764", "n01443537"], ["goldfish", "shark"])
