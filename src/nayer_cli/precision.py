"""The precision of the networks: float32, or bfloat16 autocast with float32 statistics and losses."""

import torch


class Precision:
    """Opens an autocast region for one forward pass.

    One region for each forward, never around several optimizer steps: autocast caches the cast weights until the
    region ends, and would go on using old ones.
    """

    def __init__(self, device: torch.device | str = "cpu", bf16: bool = False) -> None:
        self.device_type = torch.device(device).type
        self.bf16 = bf16

    def __call__(self) -> torch.autocast:
        """Return a fresh region, to be used as `with precision():`."""
        return torch.autocast(self.device_type, dtype=torch.bfloat16, enabled=self.bf16)


def choose(amp: str, device: torch.device) -> Precision:
    """Resolve the setting `amp`: `auto` takes bfloat16 where the processor multiplies it natively."""
    if amp == "auto":
        native = torch.cuda.is_bf16_supported() if device.type == "cuda" else _cpu_multiplies_bf16()
        return Precision(device, native)
    return Precision(device, amp == "bf16")


def _cpu_multiplies_bf16() -> bool:
    # torch.cpu has had this probe since 2.4 but lists it as private.
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(probe and probe())
