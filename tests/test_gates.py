from decimal import Decimal
from fractions import Fraction

from nayer_cli.gates import Count, Limits, Pair, judge


def test_thresholds_are_the_decimals_that_were_typed():
    thresholds = [f"{k / 100:.2f}" for k in range(101)] + ["0.125", "0.015", "0.333", "1e-3"]
    for text in thresholds:
        limits, wanted = Limits(float(text), float(text)), Fraction(Decimal(text))
        for n in range(1, 61):
            edges = (round(n * wanted), round(n - n * wanted))  # of top-1 and of the drop; nothing changes elsewhere
            for hits in {min(max(edge + k, 0), n) for edge in edges for k in (-1, 0, 1)}:
                top1, drop = judge({"": Count(hits, n)}, Count(n, n), limits)
                assert top1["passed"] == (Fraction(hits, n) >= wanted)
                assert drop["passed"] == (Fraction(n - hits, n) <= wanted)


def test_the_drop_from_any_reference_is_exact():
    limits = Limits(max_drop=0.02)
    for of_reference in range(101):
        for hits in range(101):
            (gate,) = judge({"": Count(hits, 100)}, Count(of_reference, 100), limits)
            assert gate["passed"] == (of_reference - hits <= 2)


def test_the_worst_that_ships_is_judged_and_named():
    shipped = {"deployed": Count(98, 100), "onnxruntime": Count(20, 100)}
    gates = judge(shipped, Count(99, 100), Limits(0.9, 0.02))
    assert [(gate["stage"], gate["value"], gate["passed"]) for gate in gates] == [
        ("onnxruntime", 0.2, False),
        ("onnxruntime", 0.79, False),
    ]
    assert "stage" not in judge({"": Count(1, 1)}, None, Limits(min_top1=1.0))[0]


def test_a_pair_that_disagrees_misses_a_gate_only_where_one_is_set():
    pair = Pair("deployed", "onnxruntime", Count(198, 200), 0.995)
    assert not pair.agrees and Pair("deployed", "onnxruntime", Count(199, 200), 0.995).agrees
    assert judge({"": Count(1, 1)}, None, Limits(), [pair]) == []
    top1, agreement = judge({"": Count(1, 1)}, None, Limits(min_top1=0.5), [pair])
    assert top1["passed"] and not agreement["passed"] and agreement["metric"] == "agreement"


def test_of_a_few_images_one_may_tip():
    assert Pair("fake_quantized", "deployed", Count(9, 10), 0.98, spare=1).agrees
    assert not Pair("fake_quantized", "deployed", Count(8, 10), 0.98, spare=1).agrees
