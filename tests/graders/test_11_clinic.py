"""Graders of notebook 11, the clinic: what each piece of code should do, and nothing of what ails it."""

from __future__ import annotations

import torch

from graders import oracles, oracles_clinic
from graders.common import dtypes, expect_values, named, seed, short, strided, together, whole
from graders.oracles_balance import biased_scores
from graders.probes import call, vjp
from graders.probes.clinic import gate_program, in_place_on_ranks, work_of
from graders.values import expect_dtype, expect_type, expect_value
from moe_course.grading.exercises.expect import (
    INTEGERS,
    CheckFailed,
    Shown,
    expect,
    expect_gradients,
    expect_tuple,
    expect_untouched,
    returned,
)
from moe_course.grading.exercises.rubric import criterion, grades


def dense(weights_TK, idx_TK, want_TE, k, given):
    """The weights as a matrix (T, E), once weights and experts have the shape (T, k)."""
    tokens, experts = want_TE.shape
    for part, what in ((weights_TK, "weights_TK"), (idx_TK, "idx_TK")):
        shape = tuple(part.shape) if isinstance(part, torch.Tensor) else f"a {type(part).__name__}"
        expect(shape == (tokens, k), f"{what} should have shape (T, k) = {(tokens, k)}, not {shape}", given)
    if idx_TK.dtype not in INTEGERS or not bool(((idx_TK >= 0) & (idx_TK < experts)).all()):
        raise CheckFailed(f"idx_TK should hold whole numbers from 0 to {experts - 1}", given, None, idx_TK)
    expect(weights_TK.is_floating_point(), f"weights_TK should hold floats, not {weights_TK.dtype}", given)
    return torch.zeros(tokens, experts, dtype=weights_TK.dtype).scatter_add(1, idx_TK.long(), weights_TK)


def expect_gates(parts, want_TE, k, given, **tolerance):
    """`parts`, weights_TK and idx_TK in any order of slots, give each token the weights `want_TE`."""
    gates_TE = dense(*parts, want_TE, k, given)
    expect_values(gates_TE, want_TE, "TE", given, what="the weight of each expert (gates_TE)", **tolerance)


def expect_descending(weights_TK, given):
    sorted_TK = weights_TK.sort(-1, descending=True).values
    expect(torch.equal(weights_TK, sorted_TK), "slots should come in descending weight", given)


def gate_gradients(subject, name, args, given, oracle, wrt, names, rng, **tolerance):
    """The gradients of a random weighted sum of the gates, whatever the order of the slots."""
    want_TE, k = oracle(*args), args[-1]
    parts = expect_tuple(returned(subject.run(call, name, *args), given), 2, given, "weights_TK, idx_TK")
    dense(*parts, want_TE, k, given)
    dgates_TE = short(torch.randn(want_TE.shape, generator=rng))
    dweights_TK = dgates_TE.gather(1, parts[1].long())
    given = given | {"dweights_TK": dweights_TK}
    _, got = returned(subject.run(vjp, name, args, (dweights_TK,), wrt=wrt), given)
    want = oracles.gradients(oracle, args, dgates_TE.double(), wrt)
    expect_gradients(got[: len(names)], want[: len(names)], names, given, **tolerance)
    return got


def apart(x_TD, router_DE, k, low, high=float("inf")):
    """Those tokens whose k-th and next logits differ by more than `low` and less than `high`."""
    sorted_TE = (x_TD.double() @ router_DE.double()).sort(-1, descending=True).values
    gap_T = sorted_TE[:, k - 1] - sorted_TE[:, k]
    return x_TD[(gap_T > low) & (gap_T < high)]


def routing_case(
    tokens, d_model, experts, k, rng, dtype=torch.float32, spread=1.5, low=1e-3, high=float("inf")
):
    """x (T, D) and router (D, E), with logits of the size `spread`."""
    router_DE = (spread * torch.randn(d_model, experts, generator=rng) / d_model**0.5).to(dtype)
    x_TD = torch.empty(0, d_model, dtype=dtype)
    while len(x_TD) < tokens:
        more_TD = torch.randn(max(64, 4 * tokens), d_model, generator=rng).to(dtype)
        x_TD = torch.cat([x_TD, apart(more_TD, router_DE, k, low, high) if k < experts else more_TD])
    return x_TD[:tokens], router_DE, k


@grades("gate", hidden=4)
class TestGate:
    names = "logits_TE k"

    def compare(self, subject, logits_TE, k):
        given = named(self.names, (logits_TE, k))
        out = subject.run(call, "gate", logits_TE, k)
        parts = expect_tuple(returned(out, given), 2, given, "weights_TK, idx_TK")
        expect_gates(parts, oracles_clinic.gate(logits_TE, k), k, given)
        return out

    @criterion(
        1, "two experts a token, or more", hint="What did the code do for k = 2 before you changed it?"
    )
    def test_several(self, subject, rng):
        for tokens, experts, k in ((1, 3, 2), (4, 5, 3), (whole(rng, 3, 6), 7, 2), (3, 4, 4)):
            self.compare(subject, oracles.distinct_logits(tokens, experts, rng), k)

    @criterion(
        3,
        "one expert a token",
        hint="Print the weights for k = 1. Which of them change when a logit changes, and what does Switch say?",
    )
    def test_one(self, subject, rng):
        for tokens, experts in ((1, 3), (4, 6), (whole(rng, 3, 6), 5)):
            self.compare(subject, oracles.distinct_logits(tokens, experts, rng), 1)

    @criterion(
        2,
        "gradients of the logits",
        hint="Take k = 1, multiply the weights by something, call backward: is the gradient zero, or missing?",
    )
    def test_gradients(self, subject, rng):
        for tokens, experts, k in ((1, 3, 1), (4, 6, 1), (3, 5, 2)):
            args = (oracles.distinct_logits(tokens, experts, rng), k)
            given = named(self.names, args)
            gate_gradients(subject, "gate", args, given, oracles_clinic.gate, (0,), ("logits_TE",), rng)

    test_together = together(4, test_several, test_one, test_gradients)

    @criterion(
        1,
        "bfloat16, float64 and strided logits; slots in descending weight; nothing is edited",
        hint="Which dtype comes back for bfloat16 logits, for every k?",
    )
    def test_form(self, subject, rng):
        for dtype in (torch.float64, torch.bfloat16):
            for k in (1, 3):
                logits_TE = strided(oracles.distinct_logits(3, 5, rng, dtype))
                out = self.compare(subject, logits_TE, k)
                given = named(self.names, (logits_TE, k))
                expect_dtype(out.value[0], dtype, given, what="weights_TK")
                expect_descending(out.value[0], given)
                expect_untouched(out, (logits_TE, k), self.names.split())

    def behaviour(self, subject):
        logits_TE = oracles.distinct_logits(4, 5, seed(1101))
        half = oracles.distinct_logits(3, 4, seed(1102), torch.bfloat16)
        outs = [subject.run(call, "gate", logits_TE, k) for k in (1, 2, 4)]
        dw = torch.tensor([[1.0, -2], [0.5, 1], [2, 1], [1, 3]])
        return [
            *outs,
            outs[0].inputs,
            subject.run(vjp, "gate", (logits_TE, 1), (dw[:, :1],), wrt=(0,)),
            subject.run(vjp, "gate", (logits_TE, 2), (dw,), wrt=(0,)),
            *(dtypes(subject.run(call, "gate", half, k)) for k in (1, 2)),
        ]


@grades("route_with_loss", hidden=4)
class TestRouteWithLoss:
    names = "x_TD router_DE k"
    sizes = ((3, 4, 4, 1), (5, 6, 8, 2), (9, 7, 64, 4))  # T, D, E, k

    def run(self, subject, args):
        given = named(self.names, args)
        out = subject.run(call, "route_with_loss", *args)
        return out, expect_tuple(returned(out, given), 3, given, "weights_TK, idx_TK, lb_loss"), given

    def compare(self, subject, args, **tolerance):
        out, (weights_TK, idx_TK, lb_loss), given = self.run(subject, args)
        expect_values(lb_loss, oracles_clinic.balance(*args).float(), "", given, what="lb_loss", **tolerance)
        expect_gates((weights_TK, idx_TK), oracles_clinic.routing(*args), args[2], given)
        return out

    @criterion(
        1,
        "the experts of each token, and their weights",
        hint="Do the weights of a token add up to 1, and are they still probabilities over their sum?",
    )
    def test_weights(self, subject, rng):
        for tokens, d_model, experts, k in ((3, 4, 5, 2), (4, 6, 9, 3)):
            args = routing_case(tokens, d_model, experts, k, rng)
            _, (weights_TK, idx_TK, _), given = self.run(subject, args)
            expect_gates((weights_TK, idx_TK), oracles_clinic.routing(*args), k, given)

    @criterion(
        3,
        "the loss, with few experts and with many",
        hint="Compute f, P and E·Σ f·P by hand for two tokens and three experts. Where does the code first differ?",
    )
    def test_loss(self, subject, rng):
        for sizes in (*self.sizes, (whole(rng, 6, 12), 5, 128, 3)):
            args = routing_case(*sizes, rng)
            _, (*_, lb_loss), given = self.run(subject, args)
            expect_values(lb_loss, oracles_clinic.balance(*args).float(), "", given, what="lb_loss")

    @criterion(
        3,
        "gradients of the loss and of the weights",
        hint="How large is the gradient of the loss at the router beside the one that the equation gives?",
    )
    def test_gradients(self, subject, rng):
        for sizes in ((3, 4, 5, 2), (6, 5, 8, 2), (9, 6, 64, 3)):
            self.compare_gradients(subject, routing_case(*sizes, rng), rng)

    def compare_gradients(self, subject, args, rng):
        _, (_, idx_TK, _), given = self.run(subject, args)
        want_TE, k = oracles_clinic.routing(*args), args[2]
        dense(torch.ones(len(args[0]), k), idx_TK, want_TE, k, given)
        for dgates_TE, dloss in ((0 * want_TE, 1.0), (torch.randn(want_TE.shape, generator=rng), 0.0)):
            self.compare_gradient_of(
                subject, args, idx_TK.long(), short(dgates_TE), torch.tensor(dloss), given, rng
            )

    def compare_gradient_of(self, subject, args, idx_TK, dgates_TE, dloss, given, rng):
        """The gradient of Σ dgates · gates + dloss · loss, at the tokens and at the router."""
        dweights_TK = dgates_TE.gather(1, idx_TK)

        def total(*args):
            return (oracles_clinic.routing(*args) * dgates_TE).sum() + dloss * oracles_clinic.balance(*args)

        want = oracles.gradients(total, args, torch.tensor(1.0), (0, 1))
        given = given | {"dweights_TK": dweights_TK, "dloss": dloss}
        run = subject.run(vjp, "route_with_loss", args, (dweights_TK, dloss), wrt=(0, 1))
        _, got = returned(run, given)
        expect_gradients(got, want, ("x_TD", "router_DE"), given, rtol=1e-3, atol=1e-6)

    test_together = together(4, test_weights, test_loss, test_gradients)

    @criterion(
        1,
        "bfloat16, float64 and strided inputs; the loss is a float32 number; nothing is edited",
        hint="Which dtype does each of the three results have?",
    )
    def test_form(self, subject, rng):
        for dtype in (torch.float64, torch.bfloat16, torch.float32):
            args = strided(routing_case(4, 6, 9, 2, rng, dtype, low=1e-2))
            out = self.compare(subject, args)
            given = named(self.names, args)
            expect_dtype(out.value[0], dtype, given, what="weights_TK")
            expect_dtype(out.value[2], torch.float32, given, what="lb_loss")
            expect_descending(out.value[0], given)
            expect_untouched(out, args, self.names.split())

    def behaviour(self, subject):
        args = routing_case(5, 4, 6, 2, seed(1111))
        many = routing_case(6, 4, 32, 1, seed(1112))
        half = subject.run(call, "route_with_loss", *routing_case(3, 4, 5, 2, seed(1113), torch.bfloat16))
        dweights = torch.randn(5, 2, generator=seed(1114))
        out = subject.run(call, "route_with_loss", *args)
        return [
            out,
            out.inputs,
            subject.run(call, "route_with_loss", *many),
            subject.run(vjp, "route_with_loss", args, (0 * dweights, torch.tensor(1.0)), wrt=(0, 1)),
            subject.run(vjp, "route_with_loss", args, (dweights, torch.tensor(0.0)), wrt=(0, 1)),
            dtypes(half),
        ]


def tiny_scores(tokens, experts, rng, level):
    """Scores of about 1e-7, as a sigmoid gives them far out, and biases near `level`, 0.05 apart."""
    scores_TE = 1e-7 * (0.3 + 3 * torch.rand(tokens, experts, generator=rng))
    return scores_TE, level + 0.05 * torch.randperm(experts, generator=rng)


@grades("biased_gate", hidden=4)
class TestBiasedGate:
    names = "scores_TE bias_E k"

    def run(self, subject, args):
        given = named(self.names, args)
        out = subject.run(call, "biased_gate", *args)
        return out, expect_tuple(returned(out, given), 2, given, "weights_TK, idx_TK"), given

    def compare(self, subject, *args):
        out, parts, given = self.run(subject, args)
        expect_gates(parts, oracles_clinic.biased_gate(*args), args[2], given)
        return out

    @criterion(1, "the experts of each token", hint="Which numbers decide who is chosen?")
    def test_selects(self, subject, rng):
        for tokens, experts, k in ((1, 3, 1), (4, 5, 2), (whole(rng, 3, 6), 7, 3)):
            args = (*biased_scores(tokens, experts, rng), k)
            _, (weights_TK, idx_TK), given = self.run(subject, args)
            want_TE = oracles_clinic.biased_gate(*args)
            dense(weights_TK, idx_TK, want_TE, k, given)
            picked_TE = dense(torch.ones(tokens, k), idx_TK, want_TE, k, given)
            expect_values(picked_TE, (want_TE != 0).float(), "TE", given, what="who is chosen (1: yes)")

    @criterion(
        3,
        "the weights of each token",
        hint="Every bias rises by the same number. Which experts change, and which weights?",
    )
    def test_weights(self, subject, rng):
        for tokens, experts, k in ((1, 3, 2), (4, 5, 2), (whole(rng, 3, 6), 7, 3)):
            self.compare(subject, *biased_scores(tokens, experts, rng), k)

    @criterion(
        3,
        "the weights again, with scores and biases of other sizes",
        hint="How many digits does float32 keep of 0.0000001 + 12?",
    )
    def test_other_sizes(self, subject, rng):
        for level in (12.0, -12.0):
            self.compare(subject, *tiny_scores(whole(rng, 2, 4), 6, rng, level), 3)
        scores_TE, bias_E = biased_scores(4, 5, rng)
        self.compare(subject, scores_TE, bias_E + 4096.0, 2)

    @criterion(
        2,
        "the gradients of the scores and of the bias",
        hint="Who moves the bias: the loss, or somebody else?",
    )
    def test_gradients(self, subject, rng):
        for tokens, experts, k in ((1, 4, 2), (4, 6, 3)):
            args = (*biased_scores(tokens, experts, rng), k)
            given = named(self.names, args)
            oracle = oracles_clinic.biased_gate
            got = gate_gradients(subject, "biased_gate", args, given, oracle, (0,), ("scores_TE",), rng)
            dweights_TK = torch.randn(tokens, k, generator=rng)
            run = subject.run(vjp, "biased_gate", args, (dweights_TK,), wrt=(0, 1))
            _, (_, bias_grad) = returned(run, given)
            expect(got[0] is not None, "no gradient reaches scores_TE", given)
            if bias_grad is not None and bool(bias_grad.any()):
                raise CheckFailed("a gradient reaches bias_E", given, torch.zeros(experts), bias_grad)

    test_together = together(4, test_selects, test_weights, test_other_sizes, test_gradients)

    @criterion(
        1,
        "bfloat16, float64 and strided inputs; nothing is edited",
        hint="Which dtype comes back, and into whose tensor do you write?",
    )
    def test_form(self, subject, rng):
        for dtype in (torch.float64, torch.bfloat16):
            scores_TE, bias_E = biased_scores(3, 4, rng, dtype)
            args = (*strided((scores_TE, bias_E)), 2)
            out = self.compare(subject, *args)
            expect_dtype(out.value[0], dtype, named(self.names, args), what="weights_TK")
            expect_untouched(out, args, self.names.split())

    def behaviour(self, subject):
        args = (*biased_scores(4, 5, seed(1121)), 2)
        half = (*biased_scores(3, 4, seed(1122), torch.bfloat16), 2)
        out = subject.run(call, "biased_gate", *args)
        dgates = torch.randn(4, 5, generator=seed(1123))  # each expert's own, in whichever slot it comes
        pair = out.value if isinstance(out.value, tuple) and len(out.value) == 2 else (None, None)
        fits = isinstance(pair[1], torch.Tensor) and pair[1].shape == (4, 2) and pair[1].dtype in INTEGERS
        dweights = dgates.gather(1, pair[1].long() % 5) if fits else dgates[:, :2]
        return [
            self.sorted(out),
            out.inputs,
            self.sorted(subject.run(call, "biased_gate", *tiny_scores(3, 5, seed(1124), 12.0), 2)),
            self.sorted(subject.run(call, "biased_gate", args[0], args[1] + 4096.0, 3)),
            self.sorted(subject.run(call, "biased_gate", args[0], 0 * args[1], 2)),
            returned_gradients(subject.run(vjp, "biased_gate", args, (dweights,), wrt=(0, 1))),
            dtypes(subject.run(call, "biased_gate", *half)),
        ]

    @staticmethod
    def sorted(out):
        """Weights and experts of each token in the order of the experts, where they come as matrices."""
        parts = out.value
        pair = (
            isinstance(parts, tuple) and len(parts) == 2 and all(isinstance(p, torch.Tensor) for p in parts)
        )
        if not pair or parts[0].shape != parts[1].shape or parts[1].dim() != 2:
            return out
        order = parts[1].argsort(-1)
        return [parts[0].gather(1, order), parts[1].gather(1, order)]


def returned_gradients(out):
    """The gradients alone; a gradient of zeros is as good as none."""
    if out.error or not isinstance(out.value, tuple):
        return out
    return [None if part is None or not bool(part.any()) else part for part in out.value[1]]


@grades("BalancedGate", hidden=5)
class TestBalancedGate:
    sizes = (3, 5, 2)  # d_model, num_experts, top_k

    @staticmethod
    def simulate(gate, program):
        """What counts and bias are after each step, and how near the nearest choice of an expert was."""
        counts, bias, nearest = [], [], float("inf")
        for word, *given in program:
            passes = given[1] if word == "train" else [[given[0], "plain"]] if word == "twice" else []
            for x_TD in (x_TD for x_TD, way in passes if way != "unused"):
                nearest = min(nearest, gate.margin(x_TD))
                gate.count(x_TD)
            if word == "update":
                gate.update(given[0])
            counts.append(gate.counts_E.clone())
            bias.append(gate.bias_E.clone())
        return counts, bias, nearest

    def case(self, rng, steps, sizes=None, dtype=torch.float32, margin=1e-3):
        """(sizes, router, bias, program, expected counts, expected biases); `steps` makes a program of tokens."""
        d_model, experts, k = sizes or self.sizes

        def tokens(number):
            return short(torch.randn(number, d_model, generator=rng))

        while True:
            router_DE = short(torch.randn(d_model, experts, generator=rng) / d_model**0.5)
            bias_E = short(0.3 * torch.randn(experts, generator=rng))
            program = steps(tokens)
            counts, bias, nearest = self.simulate(oracles_clinic.Gate(router_DE, bias_E, k), program)
            if nearest > margin:
                return (d_model, experts, k), router_DE, bias_E, program, counts, bias

    def compare(self, subject, case, dtype="float32"):
        """Counts and biases after every step of the program are the expected ones."""
        *args, counts, bias = case
        given = self.told(args)
        report = returned(subject.run(gate_program, "BalancedGate", *args, dtype), given)
        lines = given["the program"].splitlines()
        for step, (got, want) in enumerate(zip(report["counts"], counts, strict=True)):
            what = f"counts_E after step {step + 1}, “{lines[step].strip()}”"
            expect_values(got, want, "E", given, what=what)
        for step, (got, want) in enumerate(zip(report["bias"], bias, strict=True)):
            expect_values(got, want, "E", given, what=f"bias_E after step {step + 1}", atol=1e-5)
        return report, given

    @staticmethod
    def told(args):
        """What was given, with the program in words."""
        ways = {
            "plain": "",
            "unused": ", not in the loss",
            "reentrant": ", checkpointed (use_reentrant=True)",
        }
        ways["other"] = ", checkpointed (use_reentrant=False)"
        lines = []
        for word, *given in args[3]:
            if word == "train":
                passes = ["a forward pass" + ways[way] for _, way in given[1]]
                lines.append(f"{'train' if given[0] else 'eval'}(): {'; '.join(passes)}; backward")
            elif word == "look":
                grad = "with gradients" if given[2] else "no_grad"
                lines.append(f"{'train' if given[0] else 'eval'}(), {grad}: a forward pass")
            else:
                known = {
                    "twice": "a forward pass, and backward twice",
                    "reload": "state_dict into a new module",
                }
                lines.append(known.get(word) or f"update_bias({given[0]})")
        text = "\n           ".join(lines)
        return named("router_DE bias_E", args[1:3]) | {"top_k": args[0][2], "the program": Shown(text)}

    @criterion(
        1,
        "experts and weights of each token, and their gradients",
        hint="Which scores choose, and which scores weigh?",
    )
    def test_routes(self, subject, rng):
        case = self.case(rng, lambda tokens: [["train", True, [[tokens(4), "plain"]]]])
        sizes, router_DE, bias_E, program = case[:4]
        report = returned(subject.run(gate_program, "BalancedGate", *case[:4]), self.told(case[:4]))
        given = {"x_TD": program[0][2][0][0]} | self.told(case[:4])
        gate, x_TD, k = oracles_clinic.Gate(router_DE, bias_E, sizes[2]), program[0][2][0][0], sizes[2]
        parts = report["weights"], report["idx"]
        expect_gates(parts, gate.gates(x_TD).float(), k, given)
        slots_TE = dense(torch.arange(1.0, k + 1).expand_as(parts[0]), parts[1], gate.gates(x_TD), k, given)

        def gates(x_TD, router_DE):
            return oracles_clinic.Gate(router_DE, bias_E, k).gates(x_TD)

        want = oracles.gradients(gates, (x_TD, router_DE), slots_TE.double(), (0, 1))
        got = report["dx"], report["drouter"]
        expect_gradients(got, want, ("x_TD", "router_DE"), given)

    @criterion(
        3,
        "the counts while a model is trained and tested in turns",
        hint="Which passes of the program changed the counts, and which of them changed the router?",
    )
    def test_counts(self, subject, rng):
        def steps(tokens):
            return [
                ["train", True, [[tokens(4), "plain"]]],
                ["look", False, tokens(7), False],
                ["update", 0.25],
                ["look", False, tokens(5), False],
                ["train", True, [[tokens(3), "plain"]]],
                ["update", 0.125],
            ]

        self.compare(subject, self.case(rng, steps))

    @criterion(
        3,
        "the counts of a model that is short of memory",
        hint="How often does forward run in a training step of such a model, and which run has the gradient?",
    )
    def test_short_of_memory(self, subject, rng):
        for way in ("reentrant", "other"):
            self.compare(subject, self.case(rng, self.steps_with(way)))

    @staticmethod
    def steps_with(way):
        """One call out of two is checkpointed, then all calls."""
        return lambda tokens: [
            ["train", True, [[tokens(3), way], [tokens(4), "plain"]]],
            ["update", 0.25],
            ["train", True, [[tokens(5), way]]],
            ["update", 0.125],
        ]

    @criterion(
        2,
        "a step of several batches",
        hint="When does a step begin, and which call ends it?",
    )
    def test_batches(self, subject, rng):
        def steps(tokens):
            again = tokens(4)
            return [
                ["train", True, [[again, "plain"]]],
                ["train", True, [[again, "plain"], [tokens(3), "plain"]]],
                ["look", False, tokens(3), False],
                ["train", True, [[tokens(5), "plain"]]],
                ["update", 0.5],
                ["train", True, [[again, "plain"]]],
            ]

        self.compare(subject, self.case(rng, steps))

    @criterion(
        2,
        "calls in any mode, calls that no loss uses, and a second backward pass through one call",
        hint="What is it that tells you for certain that the router learned from a call?",
    )
    def test_switches(self, subject, rng):
        def steps(tokens):
            return [
                ["train", False, [[tokens(4), "plain"]]],
                ["look", True, tokens(3), False],
                ["look", False, tokens(3), True],
                ["train", True, [[tokens(3), "plain"], [tokens(4), "unused"]]],
                ["twice", tokens(3)],
                ["update", 0.25],
            ]

        self.compare(subject, self.case(rng, steps))

    test_together = together(4, test_routes, test_counts, test_short_of_memory, test_batches, test_switches)

    @criterion(
        1,
        "bfloat16 and float64 modules; counts and bias are part of the state",
        hint="Do the weights have the dtype of x_TD, and what does `state_dict()` hold?",
    )
    def test_form(self, subject, rng):
        def steps(tokens):
            return [
                ["train", True, [[tokens(4), "plain"]]],
                ["reload"],
                ["train", True, [[tokens(3), "plain"]]],
                ["look", False, tokens(3), False],
            ]

        for dtype in ("bfloat16", "float64"):
            report, given = self.compare(subject, self.case(rng, steps, margin=1e-2), dtype)
            expect_dtype(report["weights"], getattr(torch, dtype), given, what="weights_TK")

    def behaviour(self, subject):
        rng = seed(1131)
        x = [short(torch.randn(n, 3, generator=rng)) for n in (4, 7, 3, 5)]
        router_DE, bias_E = (
            short(torch.randn(3, 5, generator=rng)),
            short(0.3 * torch.randn(5, generator=rng)),
        )
        plain = ["train", True, [[x[0], "plain"]]]
        programs = (
            [plain],
            [plain, ["update", 0.25]],
            [plain, ["look", False, x[1], False]],
            [["train", True, [[x[2], "reentrant"], [x[0], "plain"]]]],
            [["train", True, [[x[2], "other"], [x[0], "plain"]]]],
            [plain, plain, ["train", True, [[x[3], "plain"]]], ["update", 0.5], plain],
            [["train", False, [[x[0], "plain"]]]],
            [["look", True, x[1], False]],
            [["look", False, x[1], True]],
            [["train", True, [[x[0], "plain"], [x[3], "unused"]]]],
            [["twice", x[0]]],
            [plain, ["reload"], plain],
        )
        outs = [subject.run(gate_program, "BalancedGate", (3, 5, 2), router_DE, bias_E, p) for p in programs]
        half = subject.run(gate_program, "BalancedGate", (3, 5, 2), router_DE, bias_E, [plain], "bfloat16")
        kind = half.error or str(getattr(half.value["weights"], "dtype", None))
        return [outs[0], *(out.error or [out.value["counts"], out.value["bias"]] for out in outs[1:]), kind]


def lists(shapes, rng, dtype=torch.float32):
    """One tensor of each shape."""
    return [torch.randn(*shape, generator=rng).to(dtype) for shape in shapes]


def compare_lists(got, want, what, rank, given, **tolerance):
    """The tensors of a list after the call, on one rank."""
    for place, (mine, right) in enumerate(zip(got, want, strict=True)):
        axes = "XYZ"[: right.dim()]
        expect_values(
            mine, right, axes, given, what=f"{what}[{place}] on rank {rank}, afterwards", **tolerance
        )


@grades("reduce_gradients", hidden=4)
class TestReduceGradients:
    @staticmethod
    def case(rng, groups_of, ranks, outside=(), dtype=torch.float32):
        """Arguments by rank, and what the two lists are afterwards.

        Of the ranks that take part, `groups_of` neighbours hold all experts together; those with the same place in
        their groups hold the same experts. Ranks in `outside` look on.
        """
        world = [rank for rank in range(ranks + len(outside)) if rank not in outside]
        shared = {rank: lists(((3, 2), (4,)), rng, dtype) for rank in world}
        experts = {rank: lists(((2, 3, 2), (2, 4, 3)), rng, dtype) for rank in world}
        args, want = [[] for _ in range(ranks + len(outside))], {}
        for place, rank in enumerate(world):
            same = [other for q, other in enumerate(world) if q % groups_of == place % groups_of]
            args[rank] = [shared[rank], experts[rank], {"ranks": same}, {"ranks": world}]
            totals = [
                [sum(parts) for parts in zip(*map(of.get, who), strict=True)]
                for of, who in ((shared, world), (experts, same))
            ]
            want[rank] = [[total / ranks for total in part] for part in totals]
        return args, want

    def compare(self, subject, case, only=(0, 1), **tolerance):
        args, want = case
        told = {
            f"rank {rank}": f"expert_group {a[2]['ranks']}, group {a[3]['ranks']}"
            for rank, a in enumerate(args)
            if a
        }
        first = min(want)
        given = told | {f"expert_grads[0] on rank {first}": args[first][1][0]}
        given |= {f"shared_grads[0] on rank {first}": args[first][0][0]} if 0 in only else {}
        reply = returned(subject.run(in_place_on_ranks, "reduce_gradients", args), given)
        for rank, parts in want.items():
            for part in only:
                what = ("shared_grads", "expert_grads")[part]
                compare_lists(reply[rank][1][part], parts[part], what, rank, given, **tolerance)
        return reply

    @criterion(
        1,
        "the shared gradients",
        hint="Each rank's loss is the mean over its tokens. What is the gradient of the mean over all?",
    )
    def test_shared(self, subject, rng):
        self.compare(subject, self.case(rng, 2, 2), only=(0,))

    @criterion(
        3,
        "the gradients of the experts",
        hint="Whose losses are in an expert's gradient before the call, and how many are there in all?",
    )
    def test_experts(self, subject, rng):
        self.compare(subject, self.case(rng, 2, 4), only=(1,))
        self.compare(subject, self.case(rng, 3, 3), only=(1,))

    @criterion(
        2,
        "other layouts: every rank has all experts, and some ranks take no part",
        hint="Which of the two groups says how many ranks there are, and is either of them always all ranks?",
    )
    def test_layouts(self, subject, rng):
        self.compare(subject, self.case(rng, 1, 3))
        self.compare(subject, self.case(rng, 2, 2, outside=(0,)))

    test_together = together(4, test_shared, test_experts, test_layouts)

    @criterion(
        1,
        "float64 and strided gradients, in place",
        hint="Which tensors does the optimizer see: those that you were given, or new ones?",
    )
    def test_form(self, subject, rng):
        args, want = self.case(rng, 2, 2, dtype=torch.float64)
        for given in args:
            given[:2] = [list(map(strided, part)) for part in given[:2]]
        self.compare(subject, (args, want), rtol=1e-9, atol=1e-12)

    def behaviour(self, subject):
        outs = []
        for number, layout in enumerate(((2, 2), (2, 4), (1, 2), (2, 2, (0,)))):
            args, _ = self.case(seed(1151 + number), *layout)
            out = subject.run(in_place_on_ranks, "reduce_gradients", args)
            outs += (
                [out.error] * 2
                if out.error
                else [[reply[1][part : part + 1] for reply in out.value] for part in (0, 1)]
            )
        args, _ = self.case(seed(1159), 2, 2)
        for given in args:
            given[:2] = [list(map(strided, part)) for part in given[:2]]
        out = subject.run(in_place_on_ranks, "reduce_gradients", args)
        return [*outs, out.error or [reply[1] for reply in out.value]]


@grades("clip_gradients", hidden=4)
class TestClipGradients:
    @staticmethod
    def case(rng, max_norm, ranks, outside=(), empty=(), dtype=torch.float32):
        """Arguments by rank, the norm, and the lists afterwards.

        max_norm is in units of the norm. empty: (rank, part) of lists without a tensor. The experts of later ranks
        have larger gradients.
        """
        world = [rank for rank in range(ranks + len(outside)) if rank not in outside]
        whole = lists(((3, 2), (4,)), rng, dtype)
        shared = {rank: [] if (rank, 0) in empty else [part.clone() for part in whole] for rank in world}
        experts = {rank: [] if (rank, 1) in empty else lists(((2, 3), (5,)), rng, dtype) for rank in world}
        experts = {rank: [(1 + 2 * rank) * part for part in parts] for rank, parts in experts.items()}
        once = [
            *next((of for of in shared.values() if of), []),
            *(part for of in experts.values() for part in of),
        ]
        norm = float(sum(part.double().square().sum() for part in once)) ** 0.5
        args = [[] for _ in range(ranks + len(outside))]
        for rank in world:
            args[rank] = [shared[rank], experts[rank], max_norm * norm, {"ranks": world}]
        scale = min(1.0, max_norm)
        want = {rank: [[scale * part for part in of[rank]] for of in (shared, experts)] for rank in world}
        return args, norm, want

    def compare(self, subject, case, norms=True, gradients=True, rtol=1e-4):
        args, norm, want = case
        first = min(want)
        given = {
            "max_norm": args[first][2],
            "|shared_grads|": length(args[first][0]),
            **{f"|expert_grads| on rank {rank}": length(args[rank][1]) for rank in want},
        }
        reply = returned(subject.run(in_place_on_ranks, "clip_gradients", args), given)
        for rank, parts in want.items():
            if norms:
                expect_value(reply[rank][0], norm, given, what=f"the norm on rank {rank}", atol=rtol * norm)
            for part, what in enumerate(("shared_grads", "expert_grads")):
                if gradients:
                    compare_lists(reply[rank][1][part], parts[part], what, rank, given, rtol=rtol)
        return reply, given

    @criterion(
        1,
        "gradients that are small enough stay as they are, larger ones do not",
        hint="When should nothing at all be scaled, and when everything?",
    )
    def test_small(self, subject, rng):
        _, given = self.compare(subject, self.case(rng, 4.0, 2), norms=False)
        args, *_ = self.case(rng, 0.25, 2)
        reply = returned(subject.run(in_place_on_ranks, "clip_gradients", args), given)
        large = [tensor for part in args[0][:2] for tensor in part]
        after = [tensor for part in reply[0][1] for tensor in part]
        stay = all(torch.equal(one, other) for one, other in zip(large, after, strict=True))
        expect(not stay, "gradients four times as long as max_norm stay as they are", given)

    @criterion(
        3,
        "the norm on every rank",
        hint="Put each gradient of the model once into one vector. What is its length √Σ g², and who holds what?",
    )
    def test_norm(self, subject, rng):
        self.compare(subject, self.case(rng, 4.0, 2), gradients=False)
        self.compare(subject, self.case(rng, 0.5, 3), gradients=False)

    @criterion(
        3,
        "the gradients on every rank",
        hint="Shared weights are equal on all ranks before the step. By which factor does each rank scale theirs?",
    )
    def test_scaled(self, subject, rng):
        self.compare(subject, self.case(rng, 0.5, 2), norms=False)
        self.compare(subject, self.case(rng, 0.01 * whole(rng, 3, 9), 3), norms=False)

    @criterion(
        2,
        "ranks without shared gradients or without experts, and ranks that take no part",
        hint="Who takes part in a collective operation: ranks that have something to add, or all of the group?",
    )
    def test_layouts(self, subject, rng):
        self.compare(subject, self.case(rng, 0.5, 2, empty=((0, 1),)))
        self.compare(subject, self.case(rng, 0.5, 2, outside=(0,), empty=((1, 0), (2, 0))))

    test_together = together(4, test_small, test_norm, test_scaled, test_layouts)

    @criterion(
        1,
        "a Python float, the same on every rank; float64 and strided gradients, in place",
        hint="Which type do you return, and which tensors does the optimizer see?",
    )
    def test_form(self, subject, rng):
        args, norm, want = self.case(rng, 0.5, 2, dtype=torch.float64)
        for given in args:
            given[:2] = [list(map(strided, part)) for part in given[:2]]
        reply, given = self.compare(subject, (args, norm, want), rtol=1e-6)
        for rank, (value, _) in enumerate(reply):
            expect_type(value, float, given, what=f"the norm on rank {rank}")

    def behaviour(self, subject):
        outs = []
        for number, (most, ranks) in enumerate(((4.0, 2), (0.5, 2), (0.5, 3), (0.05, 2))):
            args, *_ = self.case(seed(1161 + number), most, ranks)
            out = subject.run(in_place_on_ranks, "clip_gradients", args)
            norms = out.error or [reply[0] for reply in out.value]
            outs += [norms, out.error or [[part[:1] for part in reply[1]] for reply in out.value]]
        lone = self.case(seed(1165), 0.5, 2, empty=((0, 1),))[0]
        out = subject.run(in_place_on_ranks, "clip_gradients", lone)
        some = subject.run(
            in_place_on_ranks, "clip_gradients", self.case(seed(1166), 0.5, 2, outside=(0,))[0]
        )
        part = some.error or [reply[0] for reply in some.value[1:]]
        return [*outs, out.error or [type(out.value[0][0]).__name__, out.value[1][1]], part]


def length(tensors):
    """The norm of all numbers in a list of tensors."""
    return round(float(sum(part.double().square().sum() for part in tensors)) ** 0.5, 4)


@grades("route_in_bf16", hidden=4)
class TestRouteInBf16:
    names = "x_TD router_DE k"

    @staticmethod
    def near(tokens, experts, k, rng, d_model=32):
        """Tokens whose k-th and next logits are close, and yet far apart for float32."""
        return routing_case(tokens, d_model, experts, k, rng, torch.bfloat16, 1.5, low=3e-5, high=2e-2)

    @staticmethod
    def far(tokens, experts, k, rng, d_model=24):
        """Tokens with large logits, the k-th far from the next."""
        return routing_case(tokens, d_model, experts, k, rng, torch.bfloat16, 8.0, low=0.5)

    def run(self, subject, args):
        given = named(self.names, args)
        out = subject.run(call, "route_in_bf16", *args)
        return out, expect_tuple(returned(out, given), 2, given, "weights_TK, idx_TK"), given

    def expect_sets(self, subject, args):
        _, (weights_TK, idx_TK), given = self.run(subject, args)
        want_TE = oracles_clinic.routing(*args)
        dense(weights_TK, idx_TK, want_TE, args[2], given)
        want_TK = oracles.top_k(args[0].double() @ args[1].double(), args[2]).sort(-1).values
        wrong_T = (idx_TK.long().sort(-1).values != want_TK).any(-1)
        if bool(wrong_T.any()):
            t = int(wrong_T.nonzero()[0])
            message = (
                f"{int(wrong_T.sum())} of {len(wrong_T)} tokens go to other experts, the first is token {t}"
            )
            raise CheckFailed(message, given, want_TK[t], idx_TK[t].sort().values)

    def compare(self, subject, args):
        out, parts, given = self.run(subject, args)
        expect_gates(parts, oracles_clinic.routing(*args), args[2], given)
        return out

    @criterion(
        3,
        "the experts of every token, with many experts",
        hint="Run the code line by line, and again with the same inputs in float64. Which tensor differs first?",
    )
    def test_experts(self, subject, rng):
        for experts, k in ((64, 8), (96, 4)):
            self.expect_sets(subject, self.near(160, experts, k, rng))

    @criterion(
        2,
        "the weights of every token",
        hint="How far apart are two neighbouring bfloat16 numbers near 30, and what does exp make of that?",
    )
    def test_weights(self, subject, rng):
        for experts, k in ((64, 4), (80, whole(rng, 2, 6))):
            self.compare(subject, self.far(64, experts, k, rng))

    @criterion(
        1,
        "gradients of the tokens and of the router",
        hint="Is the graph cut anywhere between router_DE and the weights?",
    )
    def test_gradients(self, subject, rng):
        self.compare_gradients(subject, rng)

    def compare_gradients(self, subject, rng):
        args = routing_case(6, 8, 64, 3, rng, torch.bfloat16, 1.0, low=0.1)
        given, oracle = named(self.names, args), oracles_clinic.routing
        names, loose = ("x_TD", "router_DE"), {"rtol": 6e-2, "atol": 3e-2}
        gate_gradients(subject, "route_in_bf16", args, given, oracle, (0, 1), names, rng, **loose)

    test_together = together(4, test_experts, test_weights, test_gradients)

    @criterion(
        1,
        "weights in the dtype of the tokens, in descending order; nothing is edited",
        hint="Which dtype do the layers after the router expect?",
    )
    def test_form(self, subject, rng):
        args = strided(self.far(5, 64, 3, rng))
        out, (weights_TK, _), given = self.run(subject, args)
        self.compare(subject, args)
        expect_dtype(weights_TK, torch.bfloat16, given, what="weights_TK")
        expect_descending(weights_TK, given)
        expect_untouched(out, args, self.names.split())

    def behaviour(self, subject):
        near, far = self.near(24, 64, 4, seed(1171)), self.far(8, 64, 3, seed(1172))
        easy = routing_case(4, 8, 8, 2, seed(1173), torch.bfloat16, 1.0, low=0.2)
        out = subject.run(call, "route_in_bf16", *far)
        gradients = subject.run(vjp, "route_in_bf16", easy, (torch.tensor([[1.0, -2]] * 4),), wrt=(0, 1))
        reached = gradients.error or [part is not None for part in gradients.value[1]]
        return [
            *(o.error or o.value for o in (out, subject.run(call, "route_in_bf16", *near))),
            out.inputs,
            dtypes(out),
            reached,
        ]


@grades("context_router", hidden=4)
class TestContextRouter:
    names = "x_BSD router_DE"

    @staticmethod
    def inputs(batch, length, d_model, experts, rng, dtype=torch.float32):
        x_BSD = torch.randn(batch, length, d_model, generator=rng)
        router_DE = torch.randn(d_model, experts, generator=rng) / d_model**0.5
        return x_BSD.to(dtype), router_DE.to(dtype)

    def compare(self, subject, *args, first=False):
        given = named(self.names, args)
        out = subject.run(call, "context_router", *args)
        got, want_BSE = returned(out, given), oracles_clinic.context_router(*args)
        if first:
            shape = tuple(got.shape) if isinstance(got, torch.Tensor) else f"a {type(got).__name__}"
            right = tuple(want_BSE.shape)
            expect(shape == right, f"probs_BSE should have shape (B, S, E) = {right}, not {shape}", given)
            got, want_BSE = got[:, :1], want_BSE[:, :1]
        expect_values(got, want_BSE, "BSE", given, what="probs_BSE")
        return out

    @criterion(
        2,
        "the first position of each sequence",
        hint="At position 0 only one token has been read. What is the mean of one token?",
    )
    def test_first(self, subject, rng):
        for sizes in ((1, 3, 2, 4), (3, 4, 5, 2), (2, whole(rng, 5, 8), 3, 6)):
            self.compare(subject, *self.inputs(*sizes, rng), first=True)

    @criterion(
        3,
        "every position of every sequence",
        hint="Write the text word by word: which tokens are there when position s is routed, and whose are they?",
    )
    def test_values(self, subject, rng):
        for sizes in ((1, 3, 2, 4), (3, 4, 5, 2), (2, whole(rng, 5, 8), 3, 6), (4, 1, 3, 5)):
            self.compare(subject, *self.inputs(*sizes, rng))

    @criterion(
        2,
        "gradients of the tokens and of the router",
        hint="A token enters its own routing and that of later tokens: do both ways lead back to it?",
    )
    def test_gradients(self, subject, rng):
        args = self.inputs(2, whole(rng, 3, 5), 3, 4, rng)
        dprobs_BSE = short(torch.randn(*args[0].shape[:2], 4, generator=rng))
        given = named(self.names, args) | {"dprobs_BSE": dprobs_BSE}
        want = oracles.gradients(oracles_clinic.context_router, args, dprobs_BSE, wrt=(0, 1))
        _, got = returned(subject.run(vjp, "context_router", args, (dprobs_BSE,), wrt=(0, 1)), given)
        expect_gradients(got, want, ("x_BSD", "router_DE"), given)

    test_together = together(4, test_first, test_values, test_gradients)

    @criterion(
        1,
        "float32 comes back for bfloat16, float64 and strided inputs; nothing is edited",
        hint="Before or after the mean: where do you leave bfloat16?",
    )
    def test_form(self, subject, rng):
        for dtype in (torch.bfloat16, torch.float64):
            args = strided(self.inputs(2, 5, 4, 3, rng, dtype))
            out = self.compare(subject, *args)
            expect_dtype(out.value, torch.float32, named(self.names, args), what="probs_BSE")
            expect_untouched(out, args, self.names.split())

    def behaviour(self, subject):
        args = self.inputs(2, 4, 3, 5, seed(1181))
        out = subject.run(call, "context_router", *args)
        half = subject.run(call, "context_router", *self.inputs(2, 3, 4, 3, seed(1182), torch.bfloat16))
        dprobs = torch.randn(2, 4, 5, generator=seed(1183))
        return [
            out,
            out.inputs,
            subject.run(call, "context_router", *self.inputs(1, 3, 2, 4, seed(1184))),
            subject.run(vjp, "context_router", args, (dprobs,), wrt=(0, 1)),
            half,
            dtypes(half),
        ]


FILLS = {"zeros", "zero_", "zeros_like", "new_zeros", "fill_", "full", "full_like", "new_full", "ones"}
FILLS |= {"empty", "empty_like", "new_empty", "new_empty_strided", "empty_strided", "_efficientzerotensor"}


@grades("decode_experts", hidden=5)
class TestDecodeExperts:
    names = "x_TD weights_TK idx_TK w_gate_EDF w_up_EDF w_down_EFD"
    differentiable = (0, 1, 3, 4, 5)

    @staticmethod
    def inputs(tokens, k, experts, rng, among=(), sizes=(4, 3), dtype=torch.float32):
        """Arguments in which tokens choose only experts in `among` (all, if it is empty)."""
        d_model, d_ff = sizes
        pool = torch.tensor(list(among or range(experts)))
        rows = [pool[torch.randperm(len(pool), generator=rng)[:k]] for _ in range(tokens)]
        idx_TK = torch.stack(rows) if rows else torch.empty(0, k, dtype=torch.long)
        weights_TK = torch.rand(tokens, k, generator=rng) + 0.1
        x_TD = torch.randn(tokens, d_model, generator=rng)
        shapes = ((experts, d_model, d_ff), (experts, d_model, d_ff), (experts, d_ff, d_model))
        weights = (torch.randn(*s, generator=rng) / s[1] ** 0.5 for s in shapes)
        return x_TD.to(dtype), weights_TK.to(dtype), idx_TK, *(w.to(dtype) for w in weights)

    def compare(self, subject, args):
        given = named(self.names, args)
        out = subject.run(call, "decode_experts", *args)
        expect_values(
            returned(out, given), oracles.moe(*args), "TD", given, what="y_TD", rtol=1e-3, atol=1e-5
        )
        return out

    def work(self, subject, args, rng):
        """What two calls do, [few experts, many experts], each as [forward, backward]: the same experts are hit."""
        dy_TD = short(torch.randn(args[0].shape, generator=rng))
        works, few = [], args[3].shape[0]
        for experts in (few, few + 40):
            more = tuple(
                torch.cat([w, torch.randn(experts - few, *w.shape[1:], generator=rng)]) for w in args[3:]
            )
            given = named(self.names, (*args[:3], *more))
            run = subject.run(work_of, "decode_experts", (*args[:3], *more), dy_TD, self.differentiable)
            works.append(returned(run, given))
            want = oracles.moe(*args)
            expect_values(works[-1][0]["result"], want, "TD", given, what="y_TD", rtol=1e-3, atol=1e-5)
        return works, given, dy_TD

    @staticmethod
    def expect_frugal(works, half, most, args, given):
        """At most `most` matrix products for each expert that is hit, no operation for each expert that exists."""
        hits = len(args[2].unique())
        few, many = (work[half] for work in works)
        what = ("the forward pass", "the backward pass")[half]
        if many["products"] > most * hits:
            message = f"{what} has {many['products']} matrix products for {hits} experts in use"
            raise CheckFailed(message, given, f"at most {most * hits}", many["products"])
        grown = {
            name: count - few["operations"].get(name, 0)
            for name, count in many["operations"].items()
            if name not in FILLS
        }
        if sum(grown.values()) > 20:
            most_grown = sorted(grown, key=lambda name: -grown[name])[:4]
            told = ", ".join(f"{grown[name]} × {name}" for name in most_grown)
            message = f"40 experts more that nobody chose add operations to {what}: {told}"
            raise CheckFailed(message, given)

    @criterion(
        1,
        "the output of every token",
        hint="Which experts does a token visit, and with which weight does each answer come back?",
    )
    def test_outputs(self, subject, rng):
        for tokens, k, experts, among in (
            (1, 1, 3, ()),
            (4, 2, 5, ()),
            (3, 2, 5, (1, 2, 4)),
            (whole(rng, 3, 6), 3, 4, ()),
            (9, 2, 3, ()),
        ):
            self.compare(subject, self.inputs(tokens, k, experts, rng, among))

    @criterion(
        1,
        "gradients, also of an expert without tokens",
        hint="Which gradient does an expert get that no token chose: zeros, or none at all?",
    )
    def test_gradients(self, subject, rng):
        for tokens, k, experts, among in ((1, 1, 3, ()), (5, 2, 6, (0, 2, 5))):
            args = self.inputs(tokens, k, experts, rng, among)
            dy_TD = short(torch.randn(args[0].shape, generator=rng))
            given = named(self.names, args) | {"dy_TD": dy_TD}
            want = oracles.gradients(oracles.moe, args, dy_TD, wrt=self.differentiable)
            run = subject.run(vjp, "decode_experts", args, (dy_TD,), wrt=self.differentiable)
            names = [self.names.split()[i] for i in self.differentiable]
            expect_gradients(returned(run, given)[1], want, names, given, rtol=1e-3, atol=1e-5)

    @criterion(
        4,
        "the operations of a small batch",
        hint="Count the operations for 8 experts and for 128. Which line of your code runs more often?",
    )
    def test_forward_work(self, subject, rng):
        for tokens, k, among in ((1, 2, (1, 4)), (whole(rng, 4, 7), 2, (0, 3, 5))):
            args = self.inputs(tokens, k, 9, rng, among)
            works, given, _ = self.work(subject, args, rng)
            self.expect_frugal(works, 0, 3, args, given)

    @criterion(
        3,
        "the operations of its backward pass",
        hint="Which experts belong to the graph that backward walks?",
    )
    def test_backward_work(self, subject, rng):
        args = self.inputs(whole(rng, 4, 7), 2, 9, rng, (0, 3, 5, 8))
        works, given, dy_TD = self.work(subject, args, rng)
        want = oracles.gradients(oracles.moe, args, dy_TD, wrt=(0, 1))
        names = ("x_TD", "weights_TK")
        expect_gradients(works[1][1]["gradients"][:2], want, names, given, rtol=1e-3, atol=1e-5)
        self.expect_frugal(works, 1, 6, args, given)

    test_together = together(5, test_outputs, test_gradients, test_forward_work, test_backward_work)

    @criterion(
        1,
        "bfloat16, float64 and mixed inputs; nothing is edited",
        hint="Which dtype do rows of bfloat16 come back in, also with weights of float32?",
    )
    def test_form(self, subject, rng):
        for dtype, mixed in ((torch.float64, False), (torch.bfloat16, False), (torch.bfloat16, True)):
            args = strided(self.inputs(4, 2, 5, rng, (0, 1, 4), dtype=dtype))
            args = (args[0], args[1].float(), *args[2:]) if mixed else args
            out = subject.run(call, "decode_experts", *args)
            given, loose = named(self.names, args), 5e-2 if dtype == torch.bfloat16 else 1e-9
            want_TD = oracles.moe(*args)
            expect_values(returned(out, given), want_TD, "TD", given, what="y_TD", rtol=loose, atol=loose)
            expect_dtype(out.value, dtype, given, what="y_TD")
            expect_untouched(out, args, self.names.split())

    def behaviour(self, subject):
        args = self.inputs(4, 2, 6, seed(1191), (1, 2, 4))
        dy_TD = torch.randn(4, 4, generator=seed(1192))
        out = subject.run(call, "decode_experts", *args)
        half = self.inputs(3, 2, 5, seed(1193), dtype=torch.bfloat16)
        mixed = subject.run(call, "decode_experts", half[0], half[1].float(), *half[2:])
        return [
            out,
            out.inputs,
            subject.run(call, "decode_experts", *self.inputs(5, 1, 3, seed(1194))),
            subject.run(vjp, "decode_experts", args, (dy_TD,), wrt=self.differentiable),
            *self.counted(subject, args, dy_TD),
            dtypes(mixed),
        ]

    def counted(self, subject, args, dy_TD):
        """Products, and how many operations 30 idle experts add, of both passes."""
        replies = []
        for idle in (0, 30):
            more = tuple(torch.cat([w, torch.ones(idle, *w.shape[1:])]) for w in args[3:])
            wrt = self.differentiable
            out = subject.run(work_of, "decode_experts", (*args[:3], *more), dy_TD, wrt)
            if out.error:
                return [out.error] * 2
            replies.append(out.value)
        return [
            [
                replies[1][half]["products"],
                [
                    # one operation more or less says nothing; a row of them for each expert does
                    round((sum_of(replies[1][half]) - sum_of(replies[0][half])) / 30),
                ],
            ]
            for half in (0, 1)
        ]


def sum_of(work):
    """All operations but fills."""
    return sum(count for name, count in work["operations"].items() if name not in FILLS)
