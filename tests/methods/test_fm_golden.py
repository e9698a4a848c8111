"""FM against numbers that its released code computed from the same weights and codes."""

from pathlib import Path

import pytest
import torch

from golden_parts import computing_in
from nayer_cli.method import LoopState, Parts
from nayer_cli.methods.fm import Config, Method
from nayer_cli.synthesis import weigh
from released import assert_as_released, below, classifier, generator_state, golden, load, released_parts


@pytest.mark.parametrize("meta", ["fomaml", "reptile"])
def test_three_rounds(meta: str, shared: Path) -> None:
    given = golden(shared, f"fm_{meta}")
    config = Config(batch=10, g_steps=3, meta=meta, code_size=6, width=2, faithful=True)
    with computing_in(torch.float64):
        method, student = Method(config, released_parts(given)), classifier(given, "student")
        load(method.generator, generator_state(given, "generator.0"))
        totals, steps = [], method._draw
        # Of each step, not only of the best.
        method._draw = lambda *arguments: _noted(steps(*arguments), config, totals)
        for number in range(3):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Parts, "codes", lambda *_, number=number: given[f"round.{number}.codes"].clone())
                patch.setattr("nayer_cli.methods.fm.draw_labels", lambda *arguments: given["labels"])
                batch = method.synthesize(student, LoopState(warmup_epochs=2, epoch=number))
            assert_as_released(method.generator.state_dict(), generator_state(given, f"round.{number}.generator"))
            assert_as_released({"images": batch.images}, {"images": given[f"round.{number}.images"]})
            gradients = {name: weight.grad for name, weight in method.generator.named_parameters()}
            assert_as_released(gradients, generator_state(given, f"round.{number}.metagradient"))
    torch.testing.assert_close(torch.stack(totals), given["losses"], rtol=0, atol=1e-10)
    for name in ("mean", "var"):
        layers = [below(given, f"momentum.{layer}")[name] for layer in (0, 1)]
        assert_as_released({name: getattr(method.past, name)}, {name: torch.cat(layers)})


def _noted(drawn: tuple, config: Config, totals: list) -> tuple:
    totals.append(weigh(config, drawn[2]).detach())
    return drawn
