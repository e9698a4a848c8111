"""Count floating-point operations: convolutions, matrix products and attention, forward and backward."""

from collections.abc import Sequence

from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class OperationCounter(TorchDispatchMode):
    """Within `with counter:` operations are counted, by torch's own formulas; an addition and a product count as two.

    What torch has no formula for, such as a sum or a normalization, counts nothing.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._count = 0

    def take(self) -> int:
        """Return how many there were since the last time."""
        count, self._count = self._count, 0
        return count

    def __torch_dispatch__(
        self, func: OpOverload, types: object, args: Sequence[object] = (), kwargs: dict[str, object] | None = None
    ) -> object:
        """Do one operation, and count it."""
        result: object = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self._count += int(formula(*args, **(kwargs or {}), out_val=result))
        return result
