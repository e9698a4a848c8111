import pytest
import torch

from nayer_cli.method import Batch, StudentLoss
from nayer_cli.student import Student
from tiny import normalized


def student(name: str = "sgd") -> Student:
    return Student(
        normalized(seed=1).train(),
        optimizer=name,
        lr=0.2,
        lr_min=0.02,
        momentum=0.9,
        weight_decay=1e-4,
    )


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_steps_lower_the_loss(name):
    torch.manual_seed(0)
    learner = student(name)
    batch = Batch(torch.rand(16, 3, 8, 8), torch.arange(16) % 4)

    def loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(model(batch.images), batch.labels)

    values = [learner.step(loss, batch)["student"].item() for _ in range(10)]
    assert values[-1] < values[0]


def test_the_learning_rate_follows_a_cosine_from_lr_to_lr_min():
    learner, rates = student(), []
    for done in (0, 0.5, 1):
        learner.anneal(done)
        rates.append(learner.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.2, 0.11, 0.02])


def test_frozen_is_undone_afterwards():
    learner = student()
    with learner.frozen() as model:
        assert not model.training and not any(p.requires_grad for p in model.parameters())
    assert learner.model.training and all(p.requires_grad for p in learner.model.parameters())


def test_some_parameters_do_not_decay():
    model = normalized(seed=1).train()
    free = next(model.parameters())
    learner = Student(model, optimizer="sgd", lr=0.2, lr_min=0.2, momentum=0.0, weight_decay=0.5, undecayed=[free])
    before = [parameter.detach().clone() for parameter in model.parameters()]
    learner.step(lambda model, _: sum(0 * parameter.sum() for parameter in model.parameters()), None)
    moved = [not torch.equal(parameter, old) for parameter, old in zip(model.parameters(), before, strict=True)]
    assert moved[0] is False
    assert moved[2] is True


def test_terms_of_the_loss_are_told_by_name():
    learner = student()
    terms = {"kl": torch.tensor(7.0)}
    found = learner.step(lambda model, _: StudentLoss(model(torch.rand(2, 3, 8, 8)).square().sum(), terms), None)
    assert found.keys() == {"student", "student.kl"} and found["student.kl"] == 7 and not found["student"].requires_grad
