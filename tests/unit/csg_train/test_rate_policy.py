"""The policy of the layer-wise learning rates (L2O): what it chooses from, what it learns, what it remembers."""

import copy

import pytest
import torch

from csg_train.methods import load_method
from csg_train.methods.rate_policy import RatePolicy
from tests.helpers.tiny_student import nudge, tiny


def policy_of(student, window=2):
    torch.manual_seed(0)
    return RatePolicy(student.encoder, window)


def test_rates_start_at_the_hand_set_tenth_and_come_from_the_eleven_choices():
    student, _ = tiny()
    policy = policy_of(student)
    assert {name: round(float(rate), 6) for name, rate in policy.rates().items()} == {"layer3": 0.1, "layer4": 0.1}
    seen = set()
    for step in range(200):
        policy.observe(2.0 - step / 200, 0.1, student.encoder)
        seen |= {round(10 * float(rate), 4) for rate in policy.rates().values()}
    assert seen <= set(range(11))
    assert len(seen) > 5


def test_a_new_choice_comes_once_a_window():
    student, _ = tiny()
    policy = policy_of(student, window=5)
    states = []
    for _ in range(20):
        policy.observe(1.0, 0.1, student.encoder)
        states.append(int(policy.memory[6]))
    assert states == [0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 4]


def test_reinforce_is_the_policy_gradient():
    student, _ = tiny()
    policy = policy_of(student)
    for loss in (2.0, 2.0, 1.8, 1.8):
        policy.observe(loss, 0.1, student.encoder)
    slow = copy.deepcopy(policy).requires_grad_(True)
    state, logits = slow.cell(slow.inputs, slow.state), None
    logits = slow.logits(state)
    log_p = sum(
        logits[stage, action] - logits[stage].exp().sum().log() for stage, action in enumerate(slow.actions.tolist())
    )
    gradients = torch.autograd.grad(log_p, list(slow.parameters()))
    before = [p.detach().clone() for p in policy.parameters()]
    old = policy.log_probability().item()
    policy._learn(0.5)
    for now, start, gradient in zip(policy.parameters(), before, gradients, strict=True):
        torch.testing.assert_close(now - start, 0.1 * 0.5 * gradient, rtol=1e-3, atol=1e-6)
    assert policy.log_probability().item() > old, "a choice that paid becomes likelier"


def test_a_restored_policy_goes_on_the_same():
    student, _ = tiny()
    one, other = policy_of(student), RatePolicy(student.encoder, 2)
    for loss in (2.0, 1.9, 1.7, 1.6, 1.4):
        one.observe(loss, 0.1, student.encoder)
    other.load_state_dict(one.state_dict())
    nudge(student)
    for policy in (one, other):
        torch.manual_seed(3)
        for loss in (1.3, 1.2, 1.1):
            policy.observe(loss, 0.1, student.encoder)
    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)


def test_asg_hands_the_rates_to_the_optimiser_as_shares_of_the_heads():
    student, teacher = tiny()
    by_hand, learned = (kind(student, teacher, kind.Settings()) for kind in map(load_method, ("asg", "asg-l2o")))
    assert by_hand.learning_rate("layer3", 0.001, 0.01) == 0.001
    assert not any(p.requires_grad for p in learned.policy.parameters())
    assert learned.learning_rate("heads", 0.001, 0.01) == 0.01
    learned.policy.actions[0] = 7
    assert learned.learning_rate("layer3", 0.001, 0.01) == pytest.approx(0.007)
