"""Loss functions: tensors in, a 0-dimensional tensor out, in float32 or, for arguments in float64, in float64.

Logits are `[B, K]`, `t` the teacher's and `s` the student's; images are `[B, C, H, W]` in [0, 1].
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy `ce` of logits against class labels `[B]` (NAYER, eq. 3)."""
    return F.cross_entropy(_wide(logits), labels)


def distillation_kl(t: Tensor, s: Tensor, temperature: float) -> Tensor:
    """T² · KL(softmax(t/T) ‖ softmax(s/T)), averaged over the batch (Hinton et al. 2015; NAYER, eq. 6)."""
    log_p = F.log_softmax(_wide(t) / temperature, dim=1)
    log_q = F.log_softmax(_wide(s) / temperature, dim=1)
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True) * temperature**2


def masked_adversarial_kl(t: Tensor, s: Tensor) -> Tensor:
    """−KL(t ‖ s) where both predict the same class, 0 elsewhere, averaged over the whole batch.

    The decision-adversarial term `adv` of CMI (Fang et al. 2021), which NAYER's code uses for eq. 5. Gradients flow
    into both arguments; the mask is a constant.
    """
    t, s = _wide(t), _wide(s)
    agree = (t.argmax(1) == s.argmax(1)).to(t.dtype)
    log_p, log_q = F.log_softmax(t, dim=1), F.log_softmax(s, dim=1)
    return -(F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1) * agree).mean()


def bounded_adversarial_kl(t: Tensor, s: Tensor, bound: float) -> Tensor:
    """−min(KL(t ‖ s), bound) of each image, averaged over the batch (MAD, Do et al. 2022).

    An image that has reached the bound gives no gradient; the others keep theirs.
    """
    log_p, log_q = F.log_softmax(_wide(t), dim=1), F.log_softmax(_wide(s), dim=1)
    return -F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1).clamp(max=bound).mean()


def statistics_distance(mean: Tensor, var: Tensor, to_mean: Tensor, to_var: Tensor, members: Tensor) -> Tensor:
    """Σ over layers of ‖var − to_var‖₂ + ‖mean − to_mean‖₂: the term `bn` (Yin et al. 2020, eq. 4).

    The statistics are `[ΣC]`, the channels of all BatchNorm layers one after another; `members` `[ΣC, L]` is 1 where a
    channel belongs to a layer. The norms are not squared and not averaged.
    """
    squares = torch.stack([(mean - to_mean).square(), (var - to_var).square()])
    sums = squares @ members
    # Where a sum is 0 the norm has no gradient; the floor makes it 0 there instead of NaN. A sum that is NaN stays so.
    return torch.where(sums == 0, 0.0, sums.clamp_min(1e-24).sqrt()).sum()


def jensen_shannon(t: Tensor, s: Tensor, temperature: float = 3.0) -> Tensor:
    """Jensen–Shannon divergence at a temperature, probabilities clamped to [0.01, 0.99] (Yin et al. 2020, eq. 8)."""
    p = (_wide(t) / temperature).softmax(1)
    q = (_wide(s) / temperature).softmax(1)
    m = (0.5 * (p + q)).clamp(0.01, 0.99)
    p, q = p.clamp(0.01, 0.99), q.clamp(0.01, 0.99)
    return 0.5 * (F.kl_div(p.log(), m, reduction="batchmean") + F.kl_div(q.log(), m, reduction="batchmean"))


def total_variation(images: Tensor) -> Tensor:
    """`tv`: L2 norms, over the whole batch, of neighbour differences in four directions (Yin et al. 2020)."""
    x = _wide(images)
    differences = (
        x[..., :, 1:] - x[..., :, :-1],
        x[..., 1:, :] - x[..., :-1, :],
        x[..., 1:, :-1] - x[..., :-1, 1:],
        x[..., 1:, 1:] - x[..., :-1, :-1],
    )
    return torch.stack([difference.norm() for difference in differences]).sum()


def attention_transfer(t: Tensor, s: Tensor) -> Tensor:
    """Mean squared difference of normalized attention maps (Zagoruyko & Komodakis 2017, eq. 2).

    `t` and `s` are activations `[B, C, H, W]` whose H and W agree; their channel counts may differ.
    """
    return (_attention(t) - _attention(s)).square().mean()


def feature_distance(t: Tensor, s: Tensor) -> Tensor:
    """Mean squared difference of activations `[B, C, H, W]` of one shape, over the mean square of `t`.

    Hints of FitNets (Romero et al. 2015) without a regressor; the ratio gives all stages one scale.
    """
    t, s = _wide(t), _wide(s)
    return (t - s).square().mean() / t.square().mean().clamp_min(1e-12)


def relation_distance(t: Tensor, s: Tensor) -> Tensor:
    """Term `crm`: L1 distance of channel relation maps, over positions plus over channels (ZAQ, Liu et al. 2021).

    Each of `t` and `s`, activations `[B, C, H, W]` of one shape, is normalized over its channels and gets a tenth of
    its self-attention added: once positions attend to what is like them, once channels to what is unlike them. Memory
    grows with H · W, not its square, where the attention kernels of the device are fused.
    """
    t, s = (F.normalize(_wide(each).flatten(2), dim=1) for each in (t, s))  # [B, C, H·W]
    over_positions = (_related(t.mT, 1.0) - _related(s.mT, 1.0)).abs().mean()
    return over_positions + (_related(t, -1.0) - _related(s, -1.0)).abs().mean()


def one_hot(t: Tensor) -> Tensor:
    """Cross-entropy of the teacher's logits against their own largest class, which is a constant (DAFL, eq. 2)."""
    return F.cross_entropy(_wide(t), t.argmax(1))


def entropy(t: Tensor) -> Tensor:
    """Mean entropy of softmax(t) in nats: low where the teacher is sure (DFQ, Choi et al. 2020)."""
    log_p = F.log_softmax(_wide(t), dim=1)
    return -(log_p.exp() * log_p).sum(1).mean()


def balance(t: Tensor, base: float = math.e, of_all: Callable[[Tensor], Tensor] = lambda mean: mean) -> Tensor:
    """Σ p̄ log p̄ of the mean class probabilities p̄ of the batch: lowest where all classes are equally frequent.

    The negative information entropy of DAFL, eq. 5. DFQ takes the natural logarithm, the PRE-DFKD family base 10.
    `of_all` makes of the mean of this process's batch that of all processes: no small batch can have all classes.
    """
    mean = of_all(_wide(t).softmax(1).mean(0))
    # A class without any probability gives 0; the floor keeps its gradient finite.
    return (mean * mean.clamp_min(1e-30).log()).sum() / math.log(base)


def activation(features: Tensor) -> Tensor:
    """Minus the mean size of the penultimate features `[B, D]`: real images excite them (DAFL, eq. 3)."""
    return -_wide(features).abs().mean()


def gaussian_kl(mean: Tensor, var: Tensor, to_mean: Tensor, to_var: Tensor) -> Tensor:
    """Σ over channels of KL(N(mean, var) ‖ N(to_mean, to_var)); each argument is `[ΣC]` (DFQ, eq. 7).

    `mean` and biased `var` are the batch's, the others the running statistics of all BatchNorm layers.
    """
    return ((((mean - to_mean).square() + var) / to_var - 1 - (var / to_var).log()) / 2).sum()


def logit_l1(t: Tensor, s: Tensor) -> Tensor:
    """Mean absolute difference of logits over batch and classes: the student's loss of the PRE-DFKD family."""
    return F.l1_loss(_wide(s), _wide(t))


def clamped_jensen_shannon(t: Tensor, s: Tensor) -> Tensor:
    """Term `js` as PRE-DFKD's released code computes it: 1 − clamp(J, 0, 1) at temperature 3.

    All probabilities are clamped to [0.01, 0.99] and J is a mean over batch *and* classes. They then no longer sum to
    1, J is often negative, and the gradient is exactly 0: with 100 classes and more nearly always.
    """
    p, q = (_wide(t) / 3).softmax(1), (_wide(s) / 3).softmax(1)
    m, p, q = (each.clamp(0.01, 0.99) for each in (0.5 * (p + q), p, q))
    divergence = 0.5 * ((m * (m.log() - p.log())).mean() + (m * (m.log() - q.log())).mean())
    return 1 - divergence.clamp(0, 1)


def contrast(queries: Tensor, keys: Tensor, current: int, temperature: float) -> Tensor:
    """Term `cr`: each query finds its own key among all keys (CMI, Fang et al. 2021, eq. 4).

    Args:
        queries: `[N, D]` of length 1; gradients flow into them alone.
        keys: `[N, D]` of length 1, row by row those of the queries.
        current: rows that are of this batch and come first; the rest is remembered. Both parts weigh the same.
        temperature: τ.

    """
    logits = _wide(queries) @ _wide(keys).detach().mT / temperature
    each = F.cross_entropy(logits, torch.arange(len(logits), device=logits.device), reduction="none")
    return torch.stack([part.mean() for part in (each[:current], each[current:]) if len(part)]).sum()


def class_activation_maps(features: Tensor, weight: Tensor) -> Tensor:
    """Pass features `[B, C, H, W]` through a classifier's `weight` `[K, C]`, a constant (Zhou 2016): `[B, K, H, W]`."""
    return torch.einsum("bchw,kc->bkhw", _wide(features), _wide(weight).detach())


def gradient_activation_map(features: Tensor, gradient: Tensor) -> Tensor:
    """Return `[B, H, W]`, features `[B, C, H, W]` weighed by the mean of a class score's `gradient`, a constant.

    Grad-CAM (Selvaraju et al. 2017, eq. 1 and 2) without its ReLU, as SpaceshipNet (Yu et al. 2023) takes it.
    """
    weights = _wide(gradient).detach().mean((2, 3), keepdim=True)
    return (weights * _wide(features)).sum(1)


def _wide(x: Tensor) -> Tensor:
    """Compute in float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _related(rows: Tensor, sign: float) -> Tensor:
    """Add to rows X `[B, N, D]` a tenth of softmax(sign · X Xᵀ) X."""
    # With an axis of heads: the fused kernels need it.
    rows = rows.unsqueeze(1).contiguous()
    return 0.1 * F.scaled_dot_product_attention(sign * rows, rows, rows, scale=1.0) + rows


def _attention(activations: Tensor) -> Tensor:
    return F.normalize(_wide(activations).square().mean(1).flatten(1), dim=1)
