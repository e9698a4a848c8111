import pytest
import torch

from nayer_cli.codes import CODES, Codes, Noisy, Sum
from nayer_cli.config import describe
from nayer_cli.descent import RoundParameter
from nayer_cli.methods.nayer import Config

K, E, R = 3, 4, 5
POOL = torch.randn(K, E, generator=torch.Generator().manual_seed(3))
LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0])


def layer(batch: int, **options) -> Noisy:
    noisy = Noisy(POOL, R, batch, **options)
    noisy.renew(torch.Generator().manual_seed(0))
    return noisy


def drawn(name: str, seed: int = 0, batch: int = 6) -> Codes:
    torch.manual_seed(0)
    codes = CODES[name](POOL, R, batch, 0.5)
    codes.renew(torch.Generator().manual_seed(seed))
    return codes


def test_one_linear_layer_for_each_group_of_k_rows():
    assert layer(7).weight.shape == (3, E, R)
    assert layer(2).weight.shape == (1, E, R)
    assert layer(6, group=1).weight.shape == (6, E, R)
    assert layer(6, group=6).weight.shape == (1, E, R)


def test_group_i_goes_through_linear_layer_i():
    noisy = layer(7)
    normed = noisy.norm(POOL[LABELS])
    expected = torch.cat([normed[:3] @ noisy.weight[0], normed[3:6] @ noisy.weight[1], normed[6:] @ noisy.weight[2]])
    torch.testing.assert_close(noisy(LABELS), expected)


def test_renewal_gives_independent_codes_and_keeps_the_batch_norm():
    noisy = Noisy(torch.randn(K, 64), 4000, 6)
    generator = torch.Generator().manual_seed(0)
    norm_before = noisy.norm.weight.clone()
    codes = []
    for _ in range(2):
        noisy.renew(generator)
        codes.append(noisy(LABELS[:6]))
    cosine = torch.cosine_similarity(codes[0], codes[1]).abs()
    assert cosine.max() < 0.1
    assert torch.equal(noisy.norm.weight, norm_before)
    # the same class in two groups of one batch gets two codes
    assert torch.cosine_similarity(codes[0][0], codes[0][3], dim=0).abs() < 0.1


def test_renewal_forgets_the_bias_that_was_learned():
    noisy = layer(6)
    torch.nn.init.ones_(noisy.bias)
    noisy.renew(torch.Generator().manual_seed(1))
    assert not noisy.bias.any()


def test_every_group_adds_its_own_bias():
    noisy = layer(6)
    torch.nn.init.zeros_(noisy.weight)
    noisy.bias.data.copy_(torch.tensor([1.0, 2.0]).view(2, 1, 1))
    assert noisy(LABELS[:6])[:, 0].tolist() == [1, 1, 1, 2, 2, 2]


def test_embeddings_are_normalized_unless_asked_not_to():
    assert layer(6).norm(5 + 3 * torch.randn(6, E)).mean(0).abs().max() < 1e-6
    plain = layer(6, batch_norm=False)
    torch.nn.init.ones_(plain.weight)
    torch.testing.assert_close(plain(LABELS[:6])[:, 0], POOL[LABELS[:6]].sum(1))


def test_linear_layers_are_drawn_from_the_standard_normal_distribution():
    noisy = Noisy(torch.randn(K, 64), 100, 6)
    noisy.renew(torch.Generator().manual_seed(0))
    assert noisy.weight.mean().abs() < 0.05 and 0.95 < noisy.weight.std() < 1.05
    drawn = noisy.weight.clone()
    noisy.renew(torch.Generator().manual_seed(0))
    assert torch.equal(noisy.weight, drawn)


def test_checkpoints_hold_no_linear_layers_and_fit_any_batch():
    saved = torch.nn.Sequential(layer(6)).state_dict()
    assert {name.rpartition(".")[0] for name in saved} == {"0.norm"}
    other = torch.nn.Sequential(layer(12))
    weight, bias = (parameter.clone() for parameter in (other[0].weight, other[0].bias))
    other.load_state_dict(saved)
    assert torch.equal(other[0].weight, weight) and torch.equal(other[0].bias, bias)


def test_until_they_are_drawn_the_linear_layers_are_zero():
    assert not Noisy(POOL, R, 6)(LABELS[:6]).any()


def test_a_layer_that_is_never_renewed_is_state_and_common_to_all_processes():
    kept = layer(6, group=6, renewed=False)
    before = kept.weight.clone()
    kept.renew(torch.Generator().manual_seed(1))
    assert torch.equal(kept.weight, before) and before.any()
    assert {"weight", "bias"} <= kept.state_dict().keys()
    of_round = [isinstance(weight, RoundParameter) for weight in (kept.weight, layer(6).weight, layer(6).bias)]
    assert of_round == [False, True, True]


@pytest.mark.parametrize("name", CODES)
def test_codes_have_the_size_asked_for_and_gradients_reach_what_is_learned(name):
    codes = drawn(name)
    made = codes(LABELS[:6])
    assert made.shape == (6, R) and made.isfinite().all()
    if parameters := list(codes.parameters()):
        made.square().sum().backward()
        assert all(parameter.grad is not None for parameter in parameters)


@pytest.mark.parametrize("name", CODES)
def test_images_of_one_class_differ_within_a_round_by_drawn_noise_alone(name):
    made = drawn(name)(LABELS[:6])
    is_same = name in ("onehot", "lte", "noisy-kept")
    assert torch.allclose(made[0], made[3]) == is_same


@pytest.mark.parametrize("name", CODES)
def test_the_next_round_differs_where_something_is_drawn_in_it(name):
    one, other = drawn(name, seed=0)(LABELS[:6]), drawn(name, seed=1)(LABELS[:6])
    assert torch.equal(one, other) == (name in ("onehot", "lte", "noisy-kept"))


def test_only_fresh_noise_changes_from_step_to_step():
    fixed, fresh = drawn("noise"), drawn("noise-fresh")
    assert torch.equal(fixed(LABELS[:6]), fixed(LABELS[:6]))
    assert not torch.equal(fresh(LABELS[:6]), fresh(LABELS[:6]))


def test_beta_weighs_the_noise_against_the_embedding_as_it_is():
    silent = Sum(POOL, R, 6, beta=0.0)
    silent.renew(torch.Generator())
    torch.testing.assert_close(silent(LABELS[:6]), silent.linear(POOL[LABELS[:6]]))
    loud = Sum(torch.zeros(K, E), E, 6, beta=2.0)
    loud.renew(torch.Generator().manual_seed(0))
    torch.testing.assert_close(loud(LABELS[:6]), loud.linear(2 * loud.noise(LABELS[:6])))


def test_every_way_to_make_codes_can_be_chosen():
    assert set(dict(describe(Config))["codes"]["choices"]) == set(CODES)


def test_onehot_is_a_linear_layer_of_the_unit_vectors():
    codes = drawn("onehot")
    torch.testing.assert_close(codes(LABELS), codes.linear(torch.eye(K)[LABELS]))


@pytest.mark.parametrize("name", CODES)
def test_neither_embeddings_nor_drawn_noise_are_state(name):
    assert not {"pool", "noise", "noise.noise", "noise.pool"} & drawn(name).state_dict().keys()


def test_the_noise_of_a_sum_is_a_tenth_by_default():
    assert Sum(POOL, R, 6).beta == 0.1


def test_codes_without_a_forward_are_refused_by_name():
    with pytest.raises(TypeError, match="Codes must define forward"):
        Codes(POOL)(LABELS)
