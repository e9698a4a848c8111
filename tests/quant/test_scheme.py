import pytest

from nayer_cli.errors import ConfigError
from nayer_cli.quant.scheme import Scheme, parse_bits


def test_a_name_tells_the_bits():
    assert parse_bits("w4a8") == (4, 8)
    assert str(Scheme(*parse_bits(" W2A3 "))) == "w2a3"


@pytest.mark.parametrize("text", ["", "w4", "4", "w1a4", "w4a9", "a4w4", "w4a4x", "w-4a4"])
def test_other_names_are_refused(text):
    with pytest.raises(ConfigError, match="2 to 8 each") as caught:
        parse_bits(text)
    assert "--bits w4a8" in str(caught.value.hint)


def test_0_means_as_the_others():
    assert (Scheme(3, 5, 0, 0).first_last_bits, Scheme(3, 5, 0, 0).edge_bits) == (3, 5)
    assert (Scheme(3, 5).first_last_bits, Scheme(3, 5).edge_bits) == (8, 8)
