"""The precision of the networks: float32, or autocast to 16 bits with float32 statistics and losses."""

import torch

DTYPES = {"off": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """Opens an autocast region for one forward pass.

    One region for each forward, never around several optimizer steps: autocast caches the cast weights until the
    region ends, and would go on using old ones.
    """

    def __init__(self, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        self.device_type = torch.device(device).type
        self.dtype = dtype

    @property
    def is_scaled(self) -> bool:
        """Whether losses must be scaled up, since small gradients would vanish in float16."""
        return self.dtype == torch.float16

    def __call__(self) -> torch.autocast:
        """Return a fresh region, to be used as `with precision():`."""
        enabled = self.dtype != torch.float32
        return torch.autocast(self.device_type, dtype=self.dtype if enabled else None, enabled=enabled)


def choose(amp: str, device: torch.device) -> Precision:
    """Resolve the setting `amp`: `auto` takes bfloat16 where the processor multiplies it natively, or else float32."""
    if amp == "auto":
        native = _gpu_multiplies_bf16(device) if device.type == "cuda" else _cpu_multiplies_bf16()
        return Precision(device, torch.bfloat16 if native else torch.float32)
    return Precision(device, DTYPES[amp])


def _gpu_multiplies_bf16(device: torch.device) -> bool:
    # `is_bf16_supported` counts emulation, which is slower than float32: NVIDIA's have it natively from Ampere on.
    return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)


def _cpu_multiplies_bf16() -> bool:
    # torch.cpu has had this probe since 2.4 but lists it as private.
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(probe and probe())
