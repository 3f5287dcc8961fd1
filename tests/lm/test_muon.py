"""Muon: its iteration, its update beside PyTorch's own, stacks, and runs that resume with it."""

import pytest
import torch
from small import assert_identical, batch, make, plan, weights

from moe_course.config import MoEConfig
from moe_course.lesson.language import SMALL_LIMITS
from moe_course.lm import LMConfig, TrainConfig, Transformer, batches
from moe_course.lm.corpus import build
from moe_course.lm.corpus.tokenizer import train_tokenizer
from moe_course.lm.experiment.trial import Text, joined
from moe_course.lm.training.muon import Muon, Together, orthogonalize
from moe_course.lm.training.step import learning_rate, make_optimizer
from moe_course.lm.training.trainer import train, update


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("shape", [(3, 6, 11), (3, 11, 6), (2, 7, 7), (1, 1, 5)])
def test_singular_values_move_near_one_and_directions_stay(shape):
    g = normal(*shape, dtype=torch.float64)
    result = orthogonalize(g)
    u, s, vt = torch.linalg.svd(g, full_matrices=False)
    assert s.max() / s.min() > 1.5 or min(shape[1:]) == 1
    turned = u.mT @ result @ vt.mT  # diagonal, if the directions are those of g
    found = turned.diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(turned, torch.diag_embed(found), rtol=0, atol=1e-9)
    assert found.min() > 0.6
    assert found.max() < 1.3


def test_what_has_no_gradient_gets_no_update():
    assert orthogonalize(torch.zeros(2, 3, 4)).count_nonzero() == 0
    g = normal(1, 5, 7)
    g[:, 2] = 0
    assert orthogonalize(g)[:, 2].count_nonzero() == 0


def test_too_few_iterations_are_refused():
    with pytest.raises(ValueError, match="iterations must be at least 1, got 0"):
        orthogonalize(torch.ones(1, 2, 2), iterations=0)


def test_on_one_matrix_it_takes_the_steps_of_pytorchs_muon():
    """PyTorch computes in bfloat16, so the steps agree to its rounding."""
    ours, theirs = (torch.nn.Parameter(normal(24, 40)) for _ in range(2))
    one = Muon([ours], lr=0.02, momentum=0.9, weight_decay=0.3)
    other = torch.optim.Muon(
        [theirs], lr=0.02, momentum=0.9, weight_decay=0.3, adjust_lr_fn="match_rms_adamw"
    )
    start = ours.detach().clone()
    for step in range(5):
        ours.grad = theirs.grad = normal(24, 40, seed=step + 1)
        one.step()
        other.step()
    moved = (ours - start).norm()
    assert (ours - theirs).norm() < 0.02 * moved


def test_each_matrix_of_a_stack_learns_by_itself():
    stack = torch.nn.Parameter(normal(4, 6, 9))
    apart = [torch.nn.Parameter(w.clone()) for w in stack.detach()]
    gradients = normal(4, 6, 9, seed=1) * torch.tensor([1e-3, 1.0, 1e3, 1.0])[:, None, None]
    stack.grad = gradients
    for w, gradient in zip(apart, gradients, strict=True):
        w.grad = gradient.clone()
    Muon([stack]).step()
    for w in apart:
        Muon([w]).step()
    torch.testing.assert_close(stack.detach(), torch.stack([w.detach() for w in apart]))


def test_a_fused_projection_is_read_as_its_parts():
    fused = torch.nn.Parameter(normal(12, 5))
    apart = [torch.nn.Parameter(w.clone()) for w in fused.detach().chunk(3)]
    fused.grad = normal(12, 5, seed=1)
    for w, gradient in zip(apart, fused.grad.chunk(3), strict=True):
        w.grad = gradient.clone()
    Muon([{"params": [fused], "split": 3}]).step()
    Muon(apart).step()
    torch.testing.assert_close(fused.detach(), torch.cat([w.detach() for w in apart]))


def test_a_vector_is_refused():
    with pytest.raises(ValueError, match=r"shape \(5,\)"):
        Muon([torch.nn.Parameter(torch.zeros(5))])


class TestMakeOptimizer:
    def test_every_parameter_is_in_one_group_and_each_kind_in_its_own(self):
        model = make("everything", tied=False)
        names = {id(p): name for name, p in model.named_parameters()}
        optimizer = make_optimizer(model, plan(optimizer="muon"))
        groups = [{names[id(p)] for p in group["params"]} for group in optimizer.param_groups]
        assert sum(map(len, groups)) == len(names)
        assert set.union(*groups) == set(names.values())
        matrices, projections, gains, routers, tables = groups
        assert {name.rpartition(".")[2] for name in matrices if ".ffn." in name} == {
            *("w_gate", "w_up", "w_down"),
            *("shared_gate", "shared_up", "shared_down"),
        }
        assert all(name.endswith("qkv.weight") for name in projections)
        assert all(name.endswith("norm.weight") for name in gains)
        assert {name.rpartition(".")[2] for name in routers} == {"router", "router_noise"}
        assert tables == {"embedding.weight", "head.weight"}

    @pytest.mark.parametrize("optimizer", ["adamw", "muon"])
    def test_embeddings_follow_the_schedule_at_a_rate_of_their_own(self, optimizer):
        model = make("moe")
        schedule = plan(optimizer=optimizer, peak=0.01, embedding_peak=0.03)
        chosen = make_optimizer(model, schedule)
        update(model, chosen, batch(0), schedule, rate=0.002)
        rates = {id(p): group["lr"] for group in chosen.param_groups for p in group["params"]}
        for name, p in model.named_parameters():
            assert rates[id(p)] == pytest.approx(0.006 if name == "embedding.weight" else 0.002), name

    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            ({"optimizer": "sgd"}, "optimizer must be one of adamw, muon, got 'sgd'"),
            ({"embedding_peak": 0.0}, "embedding_peak must be positive or None, got 0.0"),
            ({"muon_iterations": 0}, "muon_iterations must be an int of at least 1, got 0"),
        ],
    )
    def test_a_plan_that_makes_no_sense_is_refused(self, wrong, said):
        with pytest.raises(ValueError, match=said):
            plan(**wrong)


def run(model, schedule, folder, **options):
    train(model, schedule, batch, folder, progress=False, **options)
    return model


def test_a_run_with_muon_resumes_to_the_bit(tmp_path):
    schedule = plan(optimizer="muon", embedding_peak=0.02, weight_decay=0.1)
    whole = run(make("everything"), schedule, tmp_path / "whole")

    class Stop(Exception):
        pass

    def watch(record, _):
        if record["step"] == 3:
            raise Stop

    halves = plan(optimizer="muon", embedding_peak=0.02, weight_decay=0.1, log_every=1)
    with pytest.raises(Stop):
        run(make("everything"), halves, tmp_path / "halves", watch=watch)
    resumed = run(make("everything", seed=9), schedule, tmp_path / "halves", resume=True)
    assert_identical(weights(resumed), weights(whole))


def test_a_run_begun_with_another_optimizer_does_not_go_on_with_muon(tmp_path):
    run(make("moe"), plan(), tmp_path)
    with pytest.raises(ValueError, match="optimizer = 'adamw', this one has 'muon'"):
        run(make("moe"), plan(optimizer="muon"), tmp_path, resume=True)


def test_a_state_of_other_optimizers_is_refused():
    weight = torch.nn.Parameter(torch.ones(2, 3))
    both = Together(Muon([weight]), torch.optim.AdamW([weight]))
    with pytest.raises(ValueError, match="the state is one of 1 optimizers, these are 2"):
        both.load_state_dict(Together(Muon([weight])).state_dict())


def test_a_frozen_matrix_stays():
    model = make("moe")
    model.blocks[1].ffn.w_up.requires_grad_(False)
    before = weights(model)
    schedule = plan(optimizer="muon")
    update(model, make_optimizer(model, schedule), batch(0), schedule, rate=0.01)
    after = weights(model)
    stayed = {name for name in before if torch.equal(before[name], after[name])}
    assert stayed == {"blocks.1.ffn.w_up"}


@pytest.mark.slow
def test_what_notebook_07_finds_on_eight_seeds_holds_on_three():
    """Muon ends below AdamW with the same rate for the embeddings, each at its best rate of the notebook."""
    corpus = build.load("default", SMALL_LIMITS)
    line = Text(corpus, train_tokenizer(corpus, 1024)).line("train")
    experts = MoEConfig(d_model=32, d_ff=32, num_experts=8, top_k=2)
    config = LMConfig(vocab_size=1024, d_model=32, num_layers=2, num_heads=2, context=32, ffn=experts)

    def ended(seed, **recipe):
        plan = TrainConfig(steps=150, warmup=15, embedding_peak=1e-2, bf16=False, **recipe)
        model = Transformer(config, torch.Generator().manual_seed(seed))
        optimizer, losses = make_optimizer(model, plan), []
        for step, found in zip(range(plan.steps), batches(line, 8, 32, seed=seed), strict=False):
            rate = learning_rate(step, plan.peak, plan.warmup, plan.steps, plan.floor)
            numbers, *_ = update(model, optimizer, joined(found), plan, rate)
            losses.append(numbers["ce"])
        return sum(losses[-15:])

    for seed in range(3):
        muon = ended(seed, peak=1e-2, floor=1e-3, optimizer="muon", muon_iterations=3)
        assert muon < ended(seed, peak=3e-3, floor=3e-4)
