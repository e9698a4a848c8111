"""CMI against numbers that its released code computed from the same weights and codes."""

from pathlib import Path

import pytest
import torch

from golden_parts import computing_in
from nayer_cli.method import LoopState, Parts
from nayer_cli.methods.cmi import Config, Method
from nayer_cli.synthesis import weigh
from released import assert_as_released, below, classifier, generator_state, golden, load, released_parts

CONFIG = Config(
    batch=10, g_steps=2, ce=1.0, tau=0.2, head_size=4, queue=80, code_size=6, width=2
)  # the local view is the image flipped


def test_three_rounds(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given, totals = golden(shared, "cmi"), []
    monkeypatch.setattr("nayer_cli.methods.cmi.draw_labels", lambda *arguments: given["labels"])
    fresh = generator_state(given, "generator.reset")
    monkeypatch.setattr("nayer_cli.methods.cmi.redraw_all", lambda network, rng: load(network, fresh))
    with computing_in(torch.float64):
        method, student = Method(CONFIG, released_parts(given)), classifier(given, "student")
        load(method.contrast.head, below(given, "head.0.head"))
        method.contrast.view = lambda images, rng: images.flip(3)
        steps = method._draw
        method._draw = lambda *arguments, **options: _noted(steps(*arguments, **options), totals)
        for number in range(3):
            monkeypatch.setattr(Parts, "codes", lambda *_, number=number: given[f"round.{number}.codes"].clone())
            batch = method.synthesize(student, LoopState(epoch=number))
            method.store.push(batch.rows)
            assert_as_released({"images": batch.images}, {"images": given[f"round.{number}.images"]})
            assert_as_released(method.generator.state_dict(), generator_state(given, f"round.{number}.generator"))
            assert_as_released(method.contrast.head.state_dict(), below(given, f"round.{number}.head.head"))
    torch.testing.assert_close(torch.stack(totals), given["losses"], rtol=0, atol=1e-10)
    held = method.store.read(method.store.by_age())
    assert_as_released({"queue": torch.cat([held["local"], held["whole"]], 1)}, {"queue": given["bank"]})


def _noted(drawn: tuple, totals: list) -> tuple:
    totals.append(weigh(CONFIG, drawn[1]).detach())
    return drawn
