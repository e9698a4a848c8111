import torch

from nayer_cli.noisy import NoisyLayer

K, E, R = 3, 4, 5


def layer(batch: int) -> NoisyLayer:
    noisy = NoisyLayer(E, R, batch, K)
    noisy.renew(torch.Generator().manual_seed(0))
    return noisy


def test_one_linear_layer_for_each_group_of_k_rows():
    assert layer(7).weight.shape == (3, E, R)
    assert layer(2).weight.shape == (1, E, R)


def test_group_i_goes_through_linear_layer_i():
    noisy = layer(7)
    embeddings = torch.randn(K, E)[torch.tensor([0, 1, 2, 0, 1, 2, 0])]
    normed = noisy.norm(embeddings)
    expected = torch.cat([normed[:3] @ noisy.weight[0], normed[3:6] @ noisy.weight[1], normed[6:] @ noisy.weight[2]])
    torch.testing.assert_close(noisy(embeddings), expected)


def test_renewal_gives_independent_codes_and_keeps_the_batch_norm():
    noisy = NoisyLayer(64, 4000, 6, K)
    generator = torch.Generator().manual_seed(0)
    norm_before = noisy.norm.weight.clone()
    embeddings = torch.randn(K, 64).repeat(2, 1)
    codes = []
    for _ in range(2):
        noisy.renew(generator)
        codes.append(noisy(embeddings))
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
    assert noisy(torch.randn(6, E))[:, 0].tolist() == [1, 1, 1, 2, 2, 2]


def test_embeddings_are_normalized_unless_asked_not_to():
    embeddings = 5 + 3 * torch.randn(6, E)
    assert layer(6).norm(embeddings).mean(0).abs().max() < 1e-6
    plain = NoisyLayer(E, R, 6, K, batch_norm=False)
    torch.nn.init.ones_(plain.weight)
    torch.testing.assert_close(plain(embeddings)[:, 0], embeddings.sum(1))


def test_linear_layers_are_drawn_from_the_standard_normal_distribution():
    noisy = NoisyLayer(64, 100, 6, K)
    noisy.renew(torch.Generator().manual_seed(0))
    assert noisy.weight.mean().abs() < 0.05 and 0.95 < noisy.weight.std() < 1.05


def test_checkpoints_hold_no_linear_layers_and_fit_any_batch():
    saved = torch.nn.Sequential(layer(6)).state_dict()
    assert {name.rpartition(".")[0] for name in saved} == {"0.norm"}
    other = torch.nn.Sequential(layer(12))
    weight, bias = (parameter.clone() for parameter in (other[0].weight, other[0].bias))
    other.load_state_dict(saved)
    assert torch.equal(other[0].weight, weight) and torch.equal(other[0].bias, bias)


def test_until_they_are_drawn_the_linear_layers_are_zero():
    assert not NoisyLayer(E, R, 6, K)(torch.randn(6, E)).any()
