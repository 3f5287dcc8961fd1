"""Graders of notebook 01, the dense FFN."""

from __future__ import annotations

import dataclasses

import torch

from graders import oracles
from graders.common import expect_count, expect_values, named, short, together, typed
from graders.probes import call, vjp
from moe_course.config import ModelConfig
from moe_course.grading.exercises.expect import (
    expect,
    expect_gradients,
    expect_number,
    expect_raises,
    expect_tensor,
    expect_tuple,
    expect_untouched,
    returned,
)
from moe_course.grading.exercises.rubric import criterion, grades
from moe_course.published import PRESETS


def ffn_inputs(tokens, d_model, d_ff, rng, dtype=torch.float32):
    """x (T, D), w_gate (D, F), w_up (D, F), w_down (F, D), with outputs of order 1."""
    shapes = ((tokens, d_model), (d_model, d_ff), (d_model, d_ff), (d_ff, d_model))
    return tuple(
        (torch.randn(*shape, generator=rng) / shape[0] ** (0.5 * (i > 0))).to(dtype)
        for i, shape in enumerate(shapes)
    )


def sizes(rng, count):
    """Sizes drawn anew for every seed: nobody can know the answers by heart."""
    return torch.randint(100, 10_000, (count,), generator=rng).tolist()


SWIGLU = "x_TD w_gate_DF w_up_DF w_down_FD"


@grades("swiglu_ffn", hidden=2)
class TestSwigluFfn:
    @criterion(1, "the result has the shape of x", hint="Which matrix takes F back to D?")
    def test_shape(self, subject, rng):
        args = ffn_inputs(3, 5, 7, rng)
        got = returned(subject.run(call, "swiglu_ffn", *args), named(SWIGLU, args))
        expect(isinstance(got, torch.Tensor), "the result should be a tensor", named(SWIGLU, args))
        expect(
            got.shape == (3, 5), f"x has shape (3, 5) and the result {tuple(got.shape)}", named(SWIGLU, args)
        )

    @criterion(
        2,
        "silu(x·w_gate) times x·w_up, then w_down",
        hint="Which of the two paths passes through silu, and when do they meet?",
    )
    def test_values(self, subject, rng):
        for tokens, d_model, d_ff in ((1, 2, 3), (4, 3, 5), (9, 8, 6)):
            args = ffn_inputs(tokens, d_model, d_ff, rng)
            got = returned(subject.run(call, "swiglu_ffn", *args), named(SWIGLU, args))
            expect_values(got, oracles.swiglu(*args), "TD", named(SWIGLU, args), what="y_TD")

    @criterion(
        1,
        "gradients reach x and all three matrices",
        hint="Did you detach something, or leave torch on the way?",
    )
    def test_gradients(self, subject, rng):
        args = ffn_inputs(4, 3, 5, rng)
        dy_TD = short(torch.randn(4, 3, generator=rng))
        given = {**named(SWIGLU, args), "dy_TD": dy_TD}
        want = oracles.gradients(oracles.swiglu, args, dy_TD, wrt=(0, 1, 2, 3))
        _, got = returned(subject.run(vjp, "swiglu_ffn", args, (dy_TD,), wrt=(0, 1, 2, 3)), given)
        expect_gradients(got, want, SWIGLU.split(), given)

    test_together = together(2, test_values, test_gradients)

    @criterion(
        1,
        "bfloat16, float64 and strided inputs work; no input is edited",
        hint="Do you use an in-place operation, or fix a dtype?",
    )
    def test_other_inputs(self, subject, rng):
        for dtype, rtol in ((torch.float64, 1e-9), (torch.bfloat16, 6e-2)):
            args = ffn_inputs(4, 3, 5, rng, dtype)
            got = returned(subject.run(call, "swiglu_ffn", *args), named(SWIGLU, args))
            expect_tensor(
                got, oracles.swiglu(*args), "TD", named(SWIGLU, args), what="y_TD", rtol=rtol, atol=rtol
            )
        strided = tuple(arg.T.contiguous().T for arg in ffn_inputs(4, 3, 5, rng))
        out = subject.run(call, "swiglu_ffn", *strided)
        expect_tensor(returned(out), oracles.swiglu(*strided), "TD", named(SWIGLU, strided), what="y_TD")
        expect_untouched(out, strided, SWIGLU.split())

    def behaviour(self, subject):
        args = ffn_inputs(3, 2, 4, torch.Generator().manual_seed(101))
        half = subject.run(call, "swiglu_ffn", *(arg.bfloat16() for arg in args))
        return [
            subject.run(call, "swiglu_ffn", *args),
            half.error or str(getattr(half.value, "dtype", None)),
            subject.run(vjp, "swiglu_ffn", args, (torch.ones(3, 2),), wrt=(0, 1)),
        ]


@grades("ffn_params", hidden=1)
class TestFfnParams:
    @criterion(
        3,
        "three bias-free matrices",
        hint="How many matrices does a gated layer have, and how large is each?",
    )
    def test_count(self, subject, rng):
        for d_model, d_ff in ((2, 3), (7, 11), (4096, 14336), sizes(rng, 2)):
            given = {"d_model": d_model, "d_ff": d_ff}
            got = returned(subject.run(call, "ffn_params", d_model, d_ff), given)
            expect_count(got, 3 * d_model * d_ff, given)

    @criterion(1, "a Python int, exact beyond 2⁵³", hint="Does a float creep in?")
    def test_exact_int(self, subject, rng):
        d_model, d_ff = (2**30 + 2 * size + 1 for size in sizes(rng, 2))
        got = returned(subject.run(call, "ffn_params", d_model, d_ff))
        expect_number(got, 3 * d_model * d_ff, {"d_model": d_model, "d_ff": d_ff})

    def behaviour(self, subject):
        probes = ((2, 3), (16, 5), (2**31 + 1, 2**29 + 7))
        return [typed(subject.run(call, "ffn_params", *sizes)) for sizes in probes]


@grades("ffn_flops", hidden=1)
class TestFfnFlops:
    @criterion(
        3,
        "2 FLOPs for each multiply-add of the three products",
        hint="Is a multiply-add one operation or two?",
    )
    def test_count(self, subject, rng):
        for tokens, d_model, d_ff in ((1, 2, 3), (5, 7, 11), (2048, 4096, 14336), sizes(rng, 3)):
            given = {"num_tokens": tokens, "d_model": d_model, "d_ff": d_ff}
            got = returned(subject.run(call, "ffn_flops", tokens, d_model, d_ff), given)
            expect_count(got, 6 * tokens * d_model * d_ff, given)

    @criterion(1, "a Python int, exact beyond 2⁵³", hint="Does a float creep in?")
    def test_exact_int(self, subject, rng):
        large = [2**20 + 2 * size + 1 for size in sizes(rng, 3)]  # odd, so that no float holds the product
        got = returned(subject.run(call, "ffn_flops", *large))
        expect_number(got, 6 * large[0] * large[1] * large[2], named("num_tokens d_model d_ff", large))

    def behaviour(self, subject):
        probes = ((1, 2, 3), (16, 5, 7), (2**20 + 1, 2**21 + 3, 2**19 + 5))
        return [typed(subject.run(call, "ffn_flops", *sizes)) for sizes in probes]


MOE = "d_model d_ff num_experts top_k num_shared"


@grades("moe_ffn_params", hidden=3)
class TestMoeFfnParams:
    want = staticmethod(oracles.moe_ffn_params)

    def parts(self, subject, *args):
        """(total, active) of the learner, and the arguments by name."""
        given = named(" ".join(MOE.split()[: len(args)]), args)
        got = returned(subject.run(call, "moe_ffn_params", *args), given)
        total, active = expect_tuple(got, 2, given, "total, active")
        return total, active, given

    @criterion(
        2, "total: every expert and the router", hint="Does the router count, and how many columns has it?"
    )
    def test_total(self, subject, rng):
        for args in ((2, 3, 5, 2), (7, 11, 6, 4), (*sizes(rng, 3), 3)):
            total, _, given = self.parts(subject, *args)
            expect_count(total, self.want(*args)[0], given, what="the total")

    @criterion(
        2,
        "active: k experts and the whole router",
        hint="Which matrices does one token multiply with, the router's columns included?",
    )
    def test_active(self, subject, rng):
        for args in ((2, 3, 5, 2), (7, 11, 6, 4), (5, 3, 7, 7), (*sizes(rng, 3), 3)):
            _, active, given = self.parts(subject, *args)
            expect_count(active, self.want(*args)[1], given, what="the active count")

    @criterion(
        2,
        "shared experts count in both",
        hint="Can a token avoid a shared expert, and does the router know it?",
    )
    def test_shared(self, subject, rng):
        for args in ((2, 3, 5, 2, 1), (7, 11, 6, 4, 3), (*sizes(rng, 3), 3, 2)):
            total, active, given = self.parts(subject, *args)
            expect_count(total, self.want(*args)[0], given, what="the total")
            expect_count(active, self.want(*args)[1], given, what="the active count")

    test_together = together(2, test_total, test_active, test_shared)

    @criterion(
        1,
        "both counts are Python ints, exact beyond 2⁵³",
        hint="Does a float creep in on the way, through a division for example?",
    )
    def test_exact_int(self, subject, rng):
        odd = [2**28 + 2 * size + 1 for size in sizes(rng, 2)]
        for args in ((7, 11, 6, 4, 3), (*odd, 5, 2, 1)):
            total, active, given = self.parts(subject, *args)
            expect_number(total, self.want(*args)[0], given, what="the total")
            expect_number(active, self.want(*args)[1], given, what="the active count")

    @criterion(
        1, "bad arguments raise ValueError", hint="Which of the sizes may be zero, and how large may k be?"
    )
    def test_bad_arguments(self, subject, rng):
        for fine in ((4, 6, 5, 5, 0), (1, 1, 1, 1, 1)):
            total, _, given = self.parts(subject, *fine)
            expect_count(total, self.want(*fine)[0], given, what="the total")
        good = {"d_model": 4, "d_ff": 6, "num_experts": 5, "top_k": 2, "num_shared": 1}
        for wrong in (
            {"top_k": 6},
            {"top_k": 0},
            {"num_shared": -1},
            {"d_model": 0},
            {"d_ff": 0},
            {"d_ff": -3},
            {"num_experts": 0},
        ):
            args = good | wrong
            expect_raises(subject.run(call, "moe_ffn_params", **args), "ValueError", args)

    def behaviour(self, subject):
        right = ((2, 3, 5, 2), (4, 3, 7, 2, 3), (4, 3, 2, 2, 1))
        wrong = ((4, 3, 2, 3), (4, 3, 2, 0), (4, 3, 7, 2, -1), (4, 0, 7, 2))
        return [typed(subject.run(call, "moe_ffn_params", *args)) for args in (*right, *wrong)]


TINY = ModelConfig(
    vocab_size=11,
    d_model=6,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    head_dim=5,
    d_ff_expert=7,
    num_experts=5,
    top_k=2,
)


@grades("model_params", hidden=3)
class TestModelParams:
    def compare(self, subject, config, expect=expect_count):
        given = {"config": config}
        total, active = expect_tuple(
            returned(subject.run(call, "model_params", config), given), 2, given, "total, active"
        )
        want = oracles.model_params(config)
        expect(total, want[0], given, what="the total")
        expect(active, want[1], given, what="the active count")

    @criterion(
        3,
        "a plain MoE decoder: embeddings, attention, norms, router, experts",
        hint="Which norms are there besides the two of each layer, and is num_heads·head_dim always d_model?",
    )
    def test_plain_decoder(self, subject, rng):
        self.compare(subject, dataclasses.replace(TINY, num_layers=1))
        self.compare(subject, TINY)
        d_model, vocab_size, num_experts = sizes(rng, 3)
        self.compare(
            subject,
            dataclasses.replace(TINY, d_model=d_model, vocab_size=vocab_size, num_experts=num_experts),
        )

    @criterion(
        1, "tied embeddings count once", hint="How many matrices of V·D are stored when they are tied?"
    )
    def test_tied(self, subject, rng):
        self.compare(subject, dataclasses.replace(TINY, tied_embeddings=True))

    @criterion(
        1,
        "shared experts have a width of their own",
        hint="Is d_ff_shared the width of one shared expert or of all together?",
    )
    def test_shared(self, subject, rng):
        self.compare(subject, dataclasses.replace(TINY, num_shared=1, d_ff_shared=9))
        self.compare(subject, dataclasses.replace(TINY, num_shared=3, d_ff_shared=4))

    @criterion(
        1,
        "dense layers have a dense FFN and no router",
        hint="What stands in a dense layer in place of router and experts?",
    )
    def test_dense_layers(self, subject, rng):
        self.compare(subject, dataclasses.replace(TINY, num_dense_layers=1, d_ff_dense=13))
        mixed = dataclasses.replace(TINY, num_dense_layers=2, d_ff_dense=13, num_shared=1, d_ff_shared=9)
        self.compare(subject, mixed)
        self.compare(subject, dataclasses.replace(mixed, num_dense_layers=3, num_experts=0, top_k=0))

    @criterion(
        1,
        "norms on q and k, per head or over all channels",
        hint="How many key channels are there when keys have fewer heads than queries?",
    )
    def test_qk_norm(self, subject, rng):
        self.compare(subject, dataclasses.replace(TINY, qk_norm="head"))
        self.compare(subject, dataclasses.replace(TINY, qk_norm="full"))

    @criterion(
        1,
        "published models, to the last parameter",
        hint="Compare your count with the table in the notebook: which component could make up the difference?",
    )
    def test_published(self, subject, rng):
        for name in ("olmoe-1b-7b", "mixtral-8x7b", "qwen3-30b-a3b", "mixtral-8x22b"):
            self.compare(subject, PRESETS[name])

    test_together = together(
        4, test_plain_decoder, test_tied, test_shared, test_dense_layers, test_qk_norm, test_published
    )

    @criterion(
        1,
        "both counts are Python ints, exact beyond 2⁵³",
        hint="Does a float creep in on the way, through a division for example?",
    )
    def test_exact_int(self, subject, rng):
        self.compare(subject, TINY, expect_number)
        large = dataclasses.replace(TINY, d_model=2**27 + 1, vocab_size=2**28 + 3, num_layers=1)
        self.compare(subject, large, expect_number)

    def behaviour(self, subject):
        odd = dataclasses.replace(TINY, num_shared=2, d_ff_shared=4, num_dense_layers=1, d_ff_dense=13)
        configs = (
            TINY,
            odd,
            dataclasses.replace(odd, tied_embeddings=True, qk_norm="head"),
            dataclasses.replace(TINY, qk_norm="full"),
            PRESETS["mixtral-8x22b"],
        )
        return [typed(subject.run(call, "model_params", config)) for config in configs]


@grades("active_matched_d_ff", hidden=3)
class TestActiveMatchedDff:
    @criterion(
        3,
        "k experts together are as wide as the dense layer",
        hint="How many experts does one token pass through?",
    )
    def test_width(self, subject, rng):
        for d_ff, top_k in ((12, 3), (70, 7), (14336, 2), (5 * sizes(rng, 1)[0], 5)):
            given = {"d_ff_dense": d_ff, "top_k": top_k}
            expect_count(
                returned(subject.run(call, "active_matched_d_ff", d_ff, top_k), given), d_ff // top_k, given
            )

    @criterion(3, "shared experts take their part", hint="Does a token pass through the shared experts too?")
    def test_shared(self, subject, rng):
        for d_ff, top_k, shared in ((12, 2, 1), (45, 2, 3), (7 * sizes(rng, 1)[0], 4, 3)):
            given = {"d_ff_dense": d_ff, "top_k": top_k, "num_shared": shared}
            got = returned(subject.run(call, "active_matched_d_ff", d_ff, top_k, shared), given)
            expect_count(got, d_ff // (top_k + shared), given)

    @criterion(
        1,
        "a Python int, exact beyond 2⁵³",
        hint="What is the type of 12 / 3 in Python, and of 12 // 3?",
    )
    def test_exact_int(self, subject, rng):
        for d_ff, top_k in ((12, 3), ((2**54 + 2 * sizes(rng, 1)[0] + 1) * 5, 5)):
            given = {"d_ff_dense": d_ff, "top_k": top_k}
            got = returned(subject.run(call, "active_matched_d_ff", d_ff, top_k), given)
            expect_number(got, d_ff // top_k, given)

    @criterion(
        1,
        "widths that do not divide, and sizes that make no sense, raise ValueError",
        hint="What should 10 divided by 3 be, if no hidden unit may be lost?",
    )
    def test_bad_arguments(self, subject, rng):
        for fine in ((1, 1, 0), (6, 1, 1)):
            given = named("d_ff_dense top_k num_shared", fine)
            got = returned(subject.run(call, "active_matched_d_ff", *fine), given)
            expect_count(got, fine[0] // (fine[1] + fine[2]), given)
        for args in ((10, 3, 0), (16, 2, 1), (0, 2, 0), (12, 0, 3), (12, 4, -1), (-12, 3, 0)):
            given = named("d_ff_dense top_k num_shared", args)
            expect_raises(subject.run(call, "active_matched_d_ff", *args), "ValueError", given)

    def behaviour(self, subject):
        probes = (
            (12, 3),
            (24, 2, 1),
            (24, 1, 3),
            (10, 3),
            (11, 3),
            (14, 2, 1),
            (0, 2),
            (12, 0, 3),
            (12, 4, -1),
        )
        return [typed(subject.run(call, "active_matched_d_ff", *args)) for args in probes]
