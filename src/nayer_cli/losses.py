"""Loss functions: tensors in, a 0-dimensional float32 tensor out.

Logits are `[B, K]`, `t` the teacher's and `s` the student's; images are `[B, C, H, W]` in [0, 1].
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy `ce` of logits against class labels `[B]` (NAYER, eq. 3)."""
    return F.cross_entropy(logits.float(), labels)


def distillation_kl(t: Tensor, s: Tensor, temperature: float) -> Tensor:
    """T² · KL(softmax(t/T) ‖ softmax(s/T)), averaged over the batch (Hinton et al. 2015; NAYER, eq. 6)."""
    log_p = F.log_softmax(t.float() / temperature, dim=1)
    log_q = F.log_softmax(s.float() / temperature, dim=1)
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True) * temperature**2


def masked_adversarial_kl(t: Tensor, s: Tensor) -> Tensor:
    """−KL(t ‖ s) where both predict the same class, 0 elsewhere, averaged over the whole batch.

    The decision-adversarial term `adv` of CMI (Fang et al. 2021), which NAYER's code uses for eq. 5. Gradients flow
    into both arguments; the mask is a constant.
    """
    t, s = t.float(), s.float()
    agree = (t.argmax(1) == s.argmax(1)).float()
    log_p, log_q = F.log_softmax(t, dim=1), F.log_softmax(s, dim=1)
    return -(F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1) * agree).mean()


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
    p = (t.float() / temperature).softmax(1)
    q = (s.float() / temperature).softmax(1)
    m = (0.5 * (p + q)).clamp(0.01, 0.99)
    p, q = p.clamp(0.01, 0.99), q.clamp(0.01, 0.99)
    return 0.5 * (F.kl_div(p.log(), m, reduction="batchmean") + F.kl_div(q.log(), m, reduction="batchmean"))


def total_variation(images: Tensor) -> Tensor:
    """`tv`: L2 norms, over the whole batch, of neighbour differences in four directions (Yin et al. 2020)."""
    x = images.float()
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


def relation_distance(t: Tensor, s: Tensor) -> Tensor:
    """Term `crm`: L1 distance of channel relation maps, over positions plus over channels (ZAQ, Liu et al. 2021).

    Each of `t` and `s`, activations `[B, C, H, W]` of one shape, is normalized over its channels and gets a tenth of
    its self-attention added: once positions attend to what is like them, once channels to what is unlike them. Memory
    grows with H · W, not its square, where the attention kernels of the device are fused.
    """
    t, s = (F.normalize(each.float().flatten(2), dim=1) for each in (t, s))  # [B, C, H·W]
    over_positions = (_related(t.mT, 1.0) - _related(s.mT, 1.0)).abs().mean()
    return over_positions + (_related(t, -1.0) - _related(s, -1.0)).abs().mean()


def _related(rows: Tensor, sign: float) -> Tensor:
    """Add to rows X `[B, N, D]` a tenth of softmax(sign · X Xᵀ) X."""
    # With an axis of heads: the fused kernels need it.
    rows = rows.unsqueeze(1).contiguous()
    return 0.1 * F.scaled_dot_product_attention(sign * rows, rows, rows, scale=1.0) + rows


def _attention(activations: Tensor) -> Tensor:
    return F.normalize(activations.float().square().mean(1).flatten(1), dim=1)
