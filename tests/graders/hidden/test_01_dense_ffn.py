"""Hidden criteria of notebook 01, the dense FFN."""

from __future__ import annotations

import dataclasses

import torch

from graders import oracles
from graders import test_01_dense_ffn as public
from graders.common import expect_count, expect_values, named, short, wholes
from graders.probes import call, vjp
from moe_course.config import ModelConfig
from moe_course.grading.exercises.expect import (
    expect_gradients,
    expect_raises,
    expect_tuple,
    returned,
)
from moe_course.grading.exercises.rubric import criterion, grades
from moe_course.published import PRESETS


@grades("swiglu_ffn")
class HiddenSwigluFfn:
    @criterion(
        1,
        "layers of any size, also with large activations; gradients too",
        hint="What does exp do to a number like 120?",
    )
    def test_sizes(self, subject, rng):
        for scale in (1.0, 60.0):
            x_TD, *weights = public.ffn_inputs(*wholes(rng, (20, 50), (16, 40), (41, 70)), rng)
            args = (scale * x_TD, *weights)
            given = named(public.SWIGLU, args)
            dy_TD = short(torch.randn(*x_TD.shape, generator=rng))
            y_TD, got = returned(subject.run(vjp, "swiglu_ffn", args, (dy_TD,), wrt=(0, 1, 2, 3)), given)
            expect_values(
                y_TD, oracles.swiglu(*args), "TD", given, what="y_TD", rtol=1e-3, atol=1e-5 * scale**2
            )
            want = oracles.gradients(oracles.swiglu, args, dy_TD, wrt=(0, 1, 2, 3))
            expect_gradients(got, want, public.SWIGLU.split(), given, rtol=1e-3, atol=1e-5 * scale**2)

    @criterion(
        1,
        "tokens do not meet; hidden units may be renamed; twice w_up gives twice the result",
        hint="Which of the matrices does the result depend on linearly, and which pass through silu?",
    )
    def test_symmetries(self, subject, rng):
        tokens, d_model, d_ff = wholes(rng, (4, 9), (2, 6), (7, 12))
        x_TD, w_gate_DF, w_up_DF, w_down_FD = args = public.ffn_inputs(tokens, d_model, d_ff, rng)
        want_TD = oracles.swiglu(*args)
        names_F, order_T = torch.randperm(d_ff, generator=rng), torch.randperm(tokens, generator=rng)
        cases = {
            "alone": ((x_TD[:1], *args[1:]), want_TD[:1]),
            "shuffled": ((x_TD[order_T], *args[1:]), want_TD[order_T]),
            "renamed": ((x_TD, w_gate_DF[:, names_F], w_up_DF[:, names_F], w_down_FD[names_F]), want_TD),
            "doubled": ((x_TD, w_gate_DF, 2 * w_up_DF, w_down_FD), 2 * want_TD),
            "negated": ((x_TD, w_gate_DF, w_up_DF, -w_down_FD), -want_TD),
        }
        for case, (inputs, want) in cases.items():
            given = named(public.SWIGLU, inputs)
            got = returned(subject.run(call, "swiglu_ffn", *inputs), given)
            expect_values(got, want, "TD", given, what=f"y_TD, {case}", atol=1e-5)


@grades("ffn_params")
class HiddenFfnParams:
    @criterion(
        1,
        "a layer of width 1, a wide one, and one twice as wide",
        hint="By what does the count grow when one side doubles?",
    )
    def test_sizes(self, subject, rng):
        d_model, d_ff = wholes(rng, (3, 99), (100_000, 9_999_999))
        for args in ((1, d_ff), (d_model, 1), (d_model, d_ff), (d_model, 2 * d_ff), (2 * d_model, d_ff)):
            given = named("d_model d_ff", args)
            got = returned(subject.run(call, "ffn_params", *args), given)
            expect_count(got, 3 * args[0] * args[1], given)


@grades("ffn_flops")
class HiddenFfnFlops:
    @criterion(
        1,
        "one token, many tokens, twice as many",
        hint="By what do the operations grow when one of the three sizes doubles?",
    )
    def test_sizes(self, subject, rng):
        tokens, d_model, d_ff = wholes(rng, (2, 9), (10, 999), (1_000, 999_999))
        for args in (
            (1, d_model, d_ff),
            (tokens, 1, d_ff),
            (tokens, d_model, 1),
            (tokens, d_model, d_ff),
            (2 * tokens, d_model, d_ff),
        ):
            given = named("num_tokens d_model d_ff", args)
            got = returned(subject.run(call, "ffn_flops", *args), given)
            expect_count(got, 6 * args[0] * args[1] * args[2], given)


@grades("moe_ffn_params")
class HiddenMoeFfnParams:
    @criterion(
        2,
        "layers of any size: one expert, all chosen, one shared expert more",
        hint="Which of the two numbers depends on k, and by how much does one more shared expert raise them?",
    )
    def test_sizes(self, subject, rng):
        d_model, d_ff, experts, shared = wholes(rng, (2, 999), (1_000, 9_999), (4, 60), (1, 5))
        (top_k,) = wholes(rng, (2, experts - 1))
        sizes = (d_model, d_ff)
        cases = [(*sizes, experts, k, shared) for k in (1, top_k, experts)]
        cases += [
            (*sizes, experts, top_k, shared + 1),
            (*sizes, experts, top_k),
            (*sizes, 1, 1),
            (d_ff, d_model, 9, 4),
        ]
        for args in cases:
            given = named(" ".join(public.MOE.split()[: len(args)]), args)
            got = returned(subject.run(call, "moe_ffn_params", *args), given)
            total, active = expect_tuple(got, 2, given, "total, active")
            want = public.TestMoeFfnParams.want(*args)
            expect_count(total, want[0], given, what="the total")
            expect_count(active, want[1], given, what="the active count")

    @criterion(
        1,
        "one bad argument among good ones raises ValueError",
        hint="Is each of the five arguments looked at by itself?",
    )
    def test_one_bad_argument(self, subject, rng):
        d_model, d_ff, experts, shared, off = wholes(rng, (2, 99), (100, 999), (4, 60), (1, 5), (1, 9))
        good = {"d_model": d_model, "d_ff": d_ff, "num_experts": experts, "top_k": 2, "num_shared": shared}
        wrong = {"d_model": 1 - off, "d_ff": 1 - off, "num_experts": 1 - off, "num_shared": -off}
        for name, value in (*wrong.items(), ("top_k", 1 - off), ("top_k", experts + off)):
            args = good | {name: value}
            expect_raises(subject.run(call, "moe_ffn_params", **args), "ValueError", args)


@grades("model_params")
class HiddenModelParams:
    compare = public.TestModelParams.compare

    @criterion(
        2,
        "models of any size, with all the options at once",
        hint="Which of the parts changes when two options meet, say tied embeddings and dense layers?",
    )
    def test_any_model(self, subject, rng):
        (first,) = wholes(rng, (0, 1))
        for number, qk_norm in enumerate(("none", "head", "full"), start=first):
            self.compare(subject, self.config(qk_norm, number % 2 == 0, rng))

    @staticmethod
    def config(qk_norm, tied, rng):
        layers, dense, experts, shared = wholes(rng, (4, 40), (1, 3), (3, 99), (1, 4))
        kv_heads, groups, top_k = wholes(rng, (2, 9), (2, 5), (2, experts))
        vocab, width, head_dim, *d_ff = wholes(
            rng, (100, 200_000), (11, 9_999), (3, 300), *[(13, 29_999)] * 3
        )
        return ModelConfig(
            vocab_size=vocab,
            d_model=width,
            num_layers=layers,
            num_heads=kv_heads * groups,
            num_kv_heads=kv_heads,
            head_dim=head_dim,
            d_ff_expert=d_ff[0],
            num_experts=experts,
            top_k=top_k,
            num_shared=shared,
            d_ff_shared=d_ff[1],
            num_dense_layers=dense,
            d_ff_dense=d_ff[2],
            tied_embeddings=tied,
            qk_norm=qk_norm,
        )

    @criterion(
        1,
        "every preset, with more layers, and with tied embeddings where it had two matrices, or the reverse",
        hint="Which of the published models have shared experts, or dense layers at the bottom?",
    )
    def test_presets(self, subject, rng):
        for config in PRESETS.values():
            (more,) = wholes(rng, (1, 9))
            dense = config.num_dense_layers + (0 if config.num_moe_layers else more)
            deeper = {"num_layers": config.num_layers + more, "num_dense_layers": dense}
            self.compare(
                subject, dataclasses.replace(config, **deeper, tied_embeddings=not config.tied_embeddings)
            )


@grades("active_matched_d_ff")
class HiddenActiveMatchedDff:
    @criterion(
        2,
        "other widths and numbers of experts, a single one too",
        hint="How many experts of this width does a token visit in all?",
    )
    def test_other_widths(self, subject, rng):
        width, top_k, shared = wholes(rng, (1_000, 9_999), (2, 16), (1, 7))
        cases = [
            (width * top_k, top_k),
            (width * (top_k + shared), top_k, shared),
            (width, 1, 0),
            (2 * width, 1, 1),
        ]
        for args in cases:
            given = dict(zip(("d_ff_dense", "top_k", "num_shared"), args, strict=False))
            got = returned(subject.run(call, "active_matched_d_ff", *args), given)
            expect_count(got, args[0] // sum(args[1:]), given)

    @criterion(
        1,
        "one unit too many or too few raises ValueError, and so does one bad argument",
        hint="Do you look at the remainder, and at each argument by itself?",
    )
    def test_one_bad_argument(self, subject, rng):
        width, top_k, shared, off = wholes(rng, (10, 999), (2, 16), (1, 7), (1, 9))
        whole = width * (top_k + shared)
        cases = [(whole + 1, top_k, shared), (whole - 1, top_k, shared), (-whole, top_k, shared)]
        cases += [(whole, 1 - off, top_k + shared + off - 1), (whole, top_k + shared + off, -off)]
        for args in cases:
            given = named("d_ff_dense top_k num_shared", args)
            expect_raises(subject.run(call, "active_matched_d_ff", *args), "ValueError", given)
