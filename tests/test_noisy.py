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
