"""Graders of notebook 09, expert parallelism."""

from __future__ import annotations

from dataclasses import replace

import torch

from graders import oracles_parallel as right
from graders.common import (
    expect_values,
    named,
    random_idx,
    refusal,
    seed,
    strided,
    together,
    typed,
    whole,
    wholes,
)
from graders.oracles_parallel import exchange_case, layer_case
from graders.probes import call
from graders.probes.parts import with_parts
from graders.probes.ranks import in_turn
from graders.values import expect_dtype, expect_type, expect_value
from moe_course.grading.exercises.expect import (
    expect,
    expect_gradients,
    expect_index,
    expect_raises,
    expect_untouched,
    returned,
)
from moe_course.grading.exercises.rubric import criterion, grades

RANK = "expert num_experts num_ranks"


@grades("expert_rank", hidden=4)
class TestExpertRank:
    def compare(self, subject, *args):
        given = named(RANK, args)
        got = returned(subject.run(call, "expert_rank", *args), given)
        expect_value(got, right.expert_rank(*args), given, what="the rank")
        return got, given

    @criterion(
        4,
        "neighbouring experts share a rank, E/R on each",
        hint="With 8 experts on 2 ranks: who holds experts 0 to 3?",
    )
    def test_blocks(self, subject, rng):
        for experts, ranks in ((4, 2), (12, 3), (10, 5), (whole(rng, 2, 5) * 4, 4)):
            for expert in range(experts):
                self.compare(subject, expert, experts, ranks)

    @criterion(1, "a Python int", hint="What is 5 / 2 in Python, and what is 5 // 2?")
    def test_exact_int(self, subject, rng):
        got, given = self.compare(subject, whole(rng, 7, 11), 12, 4)
        expect_type(got, int, given, what="the rank")

    @criterion(
        1,
        "experts that do not divide into the ranks raise ValueError",
        hint="Who would hold the tenth of ten experts on four ranks?",
    )
    def test_divides(self, subject, rng):
        for args in ((5, 6, 6), (3, 5, 1), (0, 1, 1)):  # these do divide
            self.compare(subject, *args)
        for experts, ranks in ((10, 4), (3, 6), (whole(rng, 2, 5) * 7 + 1, 7)):
            args = (1, experts, ranks)
            expect_raises(subject.run(call, "expert_rank", *args), "ValueError", named(RANK, args))

    @criterion(
        1,
        "an expert that there is not, and sizes below 1, raise ValueError",
        hint="Which expert is the last of 12, and which rank does your code give for expert −1?",
    )
    def test_bad(self, subject, rng):
        for args in (
            (12, 12, 3),
            (-1, 12, 3),
            (whole(rng, 13, 40), 12, 3),
            (0, 0, 2),
            (0, 12, 0),
            (0, 12, -3),
        ):
            expect_raises(subject.run(call, "expert_rank", *args), "ValueError", named(RANK, args))

    def behaviour(self, subject):
        good = [(e, 12, 3) for e in range(12)] + [(e, 10, 5) for e in (0, 3, 4, 9)] + [(0, 6, 6), (5, 6, 6)]
        bad = ((2, 10, 4), (1, 3, 6), (12, 12, 3), (-1, 12, 3), (0, 0, 2), (0, 12, 0), (0, 12, -3))
        refused = [subject.run(call, "expert_rank", *args) for args in bad]
        return [
            *(subject.run(call, "expert_rank", *args) for args in good),
            typed(subject.run(call, "expert_rank", 7, 12, 4)),
            *(refusal(out) if out.error else out for out in refused),
        ]


def any_width(out):
    """A reply with its integers as int64: which width they have is free."""
    if isinstance(out.value, torch.Tensor) and not out.value.is_floating_point():
        return replace(out, value=out.value.long())
    return out


SEND = "idx_TK num_experts num_ranks"


@grades("send_counts", hidden=4)
class TestSendCounts:
    def compare(self, subject, *args):
        given = named(SEND, args)
        out = subject.run(call, "send_counts", *args)
        expect_values(returned(out, given), right.send_counts(*args), "R", given, what="counts_R")
        return out

    @criterion(
        2,
        "K = 1: how many tokens go to each rank, the own one included",
        hint="Which rank holds expert 5, and how do you count equal numbers?",
    )
    def test_one_choice(self, subject, rng):
        for tokens, ranks, here in ((5, 2, 2), (whole(rng, 11, 15), 3, 4), (9, 4, 1)):
            every, loved = torch.arange(ranks * here)[:, None], torch.ones(tokens + 1, 1, dtype=torch.int64)
            idx_TK = torch.cat([every, loved, random_idx(tokens, ranks * here, 1, rng)])
            self.compare(subject, idx_TK, ranks * here, ranks)

    @criterion(
        2,
        "two experts on one rank count twice",
        hint="Do you count tokens, or assignments of a token to an expert?",
    )
    def test_twice(self, subject, rng):
        self.compare(subject, torch.tensor([[0, 1], [2, 3], [3, 0]]), 4, 2)
        for ranks, here, k in ((3, 4, 3), (2, whole(rng, 3, 5), 4)):
            idx_TK = random_idx(whole(rng, 6, 9), ranks * here, k, rng)
            row = torch.tensor([[*range(ranks * here - 2, ranks * here), *range(k - 2)]])
            self.compare(
                subject, torch.cat([idx_TK, row, torch.arange(ranks * here)[None, -k:]]), ranks * here, ranks
            )

    @criterion(
        2,
        "a rank that gets nothing has the count 0, also the last one",
        hint="How long is your result when nobody chose an expert of the last rank?",
    )
    def test_zeros(self, subject, rng):
        self.compare(subject, torch.tensor([[0, 1]]), 4, 2)
        for among in ((0, 1, 3), (6, 7, 8)):
            self.compare(subject, random_idx(whole(rng, 4, 7), 12, 2, rng, among=among), 12, 4)

    test_together = together(3, test_one_choice, test_twice, test_zeros)

    @criterion(
        1,
        "a tensor of integers; strided indices work, and are not edited",
        hint="Can `all_to_all_single` send half a row?",
    )
    def test_other_inputs(self, subject, rng):
        args = (strided(random_idx(whole(rng, 5, 8), 8, 3, rng)), 8, 4)
        out = self.compare(subject, *args)
        expect_index(out.value, right.send_counts(*args), "R", named(SEND, args), what="counts_R")
        expect_untouched(out, args, SEND.split())

    def behaviour(self, subject):
        args = random_idx(7, 12, 3, seed(921)), 12, 3
        out = subject.run(call, "send_counts", *args)
        return [
            any_width(out),
            out.inputs[0],
            *(
                any_width(subject.run(call, "send_counts", idx_TK, experts, ranks))
                for idx_TK, experts, ranks in (
                    (random_idx(9, 12, 1, seed(922)), 12, 4),
                    (random_idx(6, 12, 2, seed(923), among=(0, 1, 3)), 12, 4),
                    (random_idx(6, 12, 2, seed(925), among=(0, 1, 9, 10)), 12, 4),
                    (strided(random_idx(5, 6, 2, seed(924))), 6, 2),
                )
            ),
        ]


BYTES = "tokens_per_rank top_k d_model bytes_per_value num_ranks"


@grades("all_to_all_bytes", hidden=4)
class TestAllToAllBytes:
    def compare(self, subject, *args):
        given = named(BYTES, args)
        want = right.all_to_all_bytes(*args)
        got = returned(subject.run(call, "all_to_all_bytes", *args), given)
        expect_value(got, want, given, what="the number of bytes", atol=1e-9 * max(want, 1))
        return got, given

    @criterion(
        3,
        "every token travels K times; of R equal shares, the own one stays",
        hint="How many copies of a token are there, and what part of them stays on its rank?",
    )
    def test_leaves(self, subject, rng):
        self.compare(subject, 2, 1, 3, 1, 2)
        for ranks in (3, 4, whole(rng, 5, 9)):
            tokens, top_k, width = wholes(rng, (5, 9), (2, 4), (10, 14))
            self.compare(subject, tokens * ranks, top_k, width, 2, ranks)

    @criterion(2, "one rank alone sends nothing", hint="Where would a single rank send its tokens?")
    def test_alone(self, subject, rng):
        self.compare(subject, whole(rng, 5, 9), 2, 7, 4, 1)

    test_together = together(2, test_leaves, test_alone)

    @criterion(
        1,
        "a float; values of half a byte, and shares that do not divide, are not rounded",
        hint="How many bytes do three values of four bits take?",
    )
    def test_float(self, subject, rng):
        for args in ((5, 2, 3, 0.5, 4), (whole(rng, 2, 9) * 7 + 1, 3, 5, 0.5, 7)):
            got, given = self.compare(subject, *args)
            expect_type(got, float, given, what="the number of bytes")

    def behaviour(self, subject):
        cases = ((12, 2, 5, 4, 3), (20, 3, 7, 2, 4), (6, 1, 5, 1, 2), (5, 2, 7, 4, 1), (128, 8, 7168, 1, 8))
        odd = ((5, 2, 3, 0.5, 4), (15, 3, 5, 0.5, 7))
        return [typed(subject.run(call, "all_to_all_bytes", *args)) for args in (*cases, *odd)]


NODES = "idx_TK num_experts num_nodes"


@grades("distinct_nodes", hidden=4)
class TestDistinctNodes:
    def compare(self, subject, *args):
        given = named(NODES, args)
        out = subject.run(call, "distinct_nodes", *args)
        expect_values(returned(out, given), right.distinct_nodes(*args), "T", given, what="nodes_T")
        return out

    @criterion(
        2,
        "a token whose K experts lie on K different nodes visits K nodes",
        hint="Which node holds an expert, if each holds a block of E/M neighbours?",
    )
    def test_apart(self, subject, rng):
        for nodes, here, k in ((3, 2, 2), (4, whole(rng, 3, 5), 3)):
            node_TK = random_idx(whole(rng, 4, 6), nodes, k, rng)
            self.compare(subject, node_TK * here + whole(rng, 0, here - 1), nodes * here, nodes)

    @criterion(
        3,
        "a node that a token needs twice counts once, in whatever order its experts stand",
        hint="How many copies of the token must reach a node on which it has three experts?",
    )
    def test_once(self, subject, rng):
        self.compare(subject, torch.tensor([[0, 1], [1, 2], [3, 0]]), 4, 2)
        self.compare(subject, torch.tensor([[0, 5, 1], [4, 0, 5], [2, 1, 0]]), 6, 2)
        for nodes, here, k in ((3, 4, 5), (5, 3, 4)):
            self.compare(subject, random_idx(whole(rng, 9, 14), nodes * here, k, rng), nodes * here, nodes)

    test_together = together(3, test_apart, test_once)

    @criterion(
        1,
        "an int64 tensor; strided indices work, and are not edited",
        hint="Does your code write into idx_TK, and of which dtype are your counts?",
    )
    def test_other_inputs(self, subject, rng):
        args = (strided(random_idx(whole(rng, 5, 8), 8, 3, rng)), 8, 4)
        out = self.compare(subject, *args)
        expect_dtype(out.value, torch.int64, named(NODES, args), what="nodes_T")
        expect_untouched(out, args, NODES.split())

    def behaviour(self, subject):
        args = random_idx(8, 12, 4, seed(941)), 12, 3
        out = subject.run(call, "distinct_nodes", *args)
        return [
            out,
            out.inputs[0],
            subject.run(call, "distinct_nodes", random_idx(6, 4, 3, seed(942)) * 3 + 1, 12, 4),
            subject.run(call, "distinct_nodes", torch.tensor([[0, 5, 1], [4, 0, 5], [2, 1, 0]]), 6, 2),
            subject.run(call, "distinct_nodes", strided(random_idx(5, 15, 3, seed(943))), 15, 5),
        ]


EXCHANGE = "rows_ND send_R recv_R group"


def shown(case, rank, names):
    """The arguments of one rank, for a report."""
    return {"rank": rank, **named(names, case.args_R[rank])}


@grades("exchange_rows", hidden=5)
class TestExchangeRows:
    @staticmethod
    def compare(subject, *cases, gradients=False):
        """Every rank's rows, and with `gradients` what comes back to the rows that it sent. Returns the outcomes."""
        questions = [case.question(gradients) for case in cases]
        answers = returned(subject.run(in_turn, "exchange_rows", questions))
        for case, ranks in zip(cases, answers, strict=True):
            for rank, out in enumerate(ranks):
                if out is None:
                    continue
                given = shown(case, rank, EXCHANGE)
                rows_MD, grads, _ = returned(out, given)
                expect_values(rows_MD, case.want_R[rank], "ND", given, what=f"rows_MD on rank {rank}")
                if gradients:
                    given["d_rows_MD"] = case.cotangents_R[rank]
                    expect_gradients(grads, case.grads_R[rank], ["rows_ND"], given)
        return answers

    @criterion(
        3,
        "the rows for each rank arrive there, grouped by sender",
        hint="`all_to_all_single` takes two lists of counts: which tells what leaves, and which what arrives?",
    )
    def test_arrive(self, subject, rng):
        ones = exchange_case([[1, 1, 1]] * 3, rng)
        a, b = wholes(rng, (2, 4), (3, 5))
        self.compare(subject, ones, exchange_case([[a, 1, 2], [1, 3, b], [2, 1, 1]], rng))

    @criterion(
        2,
        "zeros are legal: ranks that send nothing, receive nothing, or do neither",
        hint="A rank has nothing to exchange: may it return before it calls `all_to_all_single`?",
    )
    def test_zeros(self, subject, rng):
        a = whole(rng, 2, 4)
        self.compare(
            subject,
            exchange_case([[0, a, 0], [0, 0, 0], [3, 0, 0]], rng),
            exchange_case([[0, 0, 0]] * 3, rng),
        )

    @criterion(
        3,
        "backward sends the gradient of each row back to where the row came from",
        hint="A row went from rank 0 to rank 2. Which way must its gradient go, and which counts describe that?",
    )
    def test_gradients(self, subject, rng):
        a, b = wholes(rng, (2, 4), (3, 5))
        case = exchange_case([[1, a, 2], [b, 1, 0], [0, 2, 1]], rng)
        self.compare(subject, case, gradients=True)

    @criterion(
        2,
        "only the ranks of `group` take part",
        hint="Four ranks run, two of them call. Whom does your exchange wait for?",
    )
    def test_subgroup(self, subject, rng):
        self.compare(subject, exchange_case([[1, whole(rng, 2, 4)], [3, 2]], rng, ranks=(1, 3)))

    @criterion(
        3,
        "the whole of it: a subgroup, zeros and gradients at once, on other numbers",
        hint="The lines above hold on inputs of their own. What is different about this one?",
    )
    def test_together(self, subject, rng):
        a, b = wholes(rng, (2, 5), (2, 5))
        sends = [[0, a, 1], [2, 0, b], [0, 3, 0]]
        empty = exchange_case([[0, 3, 0], [0, 0, 0], [2, 0, 0]], rng, ranks=(0, 1, 3))
        self.compare(subject, exchange_case(sends, rng, ranks=(0, 1, 3)), empty, gradients=True)

    @criterion(
        1,
        "counts may be tensors; strided rows and other dtypes work; nothing is edited",
        hint="Which dtype does the room for the incoming rows have, and how do you make ints of a tensor?",
    )
    def test_other_inputs(self, subject, rng):
        for dtype in (torch.float64, torch.bfloat16):
            case = exchange_case([[2, 1], [1, whole(rng, 2, 4)]], rng, dtype=dtype)
            for args in case.args_R:
                args[0], args[1], args[2] = strided(args[0]), torch.tensor(args[1]), torch.tensor(args[2])
            (ranks,) = self.compare(subject, case)
            for rank, out in enumerate(ranks):
                given = shown(case, rank, EXCHANGE)
                expect_dtype(out.value[0], dtype, given, what="rows_MD")
                expect(torch.equal(out.inputs[0], case.args_R[rank][0]), "rows_ND was edited in place", given)

    def behaviour(self, subject):
        rng = seed(951)
        full = exchange_case([[2, 1, 3], [1, 2, 4], [2, 1, 1]], rng)
        empty = exchange_case([[0, 3, 0], [0, 0, 0], [2, 0, 0]], rng)
        apart = exchange_case([[1, 2], [3, 2]], rng, ranks=(1, 2))
        other = exchange_case([[2, 1], [1, 2]], rng, dtype=torch.bfloat16)
        for args in other.args_R:
            args[1] = torch.tensor(args[1])
        ask = [
            *(
                [case.question(gradients)]
                for case, gradients in ((full, False), (full, True), (empty, False))
            ),
            *([case.question()] for case in (apart, other)),
        ]
        return [subject.run(in_turn, "exchange_rows", questions) for questions in ask]


EXCHANGE_ROWS = """
import torch
import torch.distributed as dist

def exchange_rows(rows_ND, send_R, recv_R, group):
    class There(torch.autograd.Function):
        @staticmethod
        def forward(ctx, rows, send, recv):
            ctx.counts = recv, send
            room = rows.new_empty(sum(recv), rows.shape[1])
            dist.all_to_all_single(room, rows.contiguous(), recv, send, group=group)
            return room

        @staticmethod
        def backward(ctx, gradient):
            return There.apply(gradient, *ctx.counts), None, None

    return There.apply(rows_ND, [int(n) for n in send_R], [int(n) for n in recv_R])
"""

LAYER = "x_TD weights_TK idx_TK local_w_gate local_w_up local_w_down num_experts group"
LEARNT = ("x_TD", "weights_TK", "local_w_gate_EDF", "local_w_up_EDF", "local_w_down_EFD")


def layer(subject, cases, gradients=False):
    """The learner's layer on several ranks; where `exchange_rows` is not written, one stands in."""
    place, name = f"{in_turn.__module__}:{in_turn.__qualname__}", "expert_parallel_forward"
    questions = [case.question(gradients) for case in cases]
    return subject.run(with_parts, {"exchange_rows": EXCHANGE_ROWS}, name, place, (name, questions), {})


def chosen(tokens, experts, k, rng, among=()):
    """Experts for each rank's tokens, (T_r, K) each."""
    return [
        random_idx(count, experts, k, rng, among) if count else torch.zeros(0, k).long() for count in tokens
    ]


@grades("expert_parallel_forward", hidden=6)
class TestExpertParallelForward:
    @staticmethod
    def compare(subject, *cases, gradients=False, rtol=1e-4, atol=1e-5):
        answers = returned(layer(subject, cases, gradients))
        for case, ranks in zip(cases, answers, strict=True):
            for rank, out in enumerate(ranks):
                if out is None:
                    continue
                given = shown(case, rank, LAYER)
                y_TD, grads, _ = returned(out, given)
                want = case.want_R[rank]
                expect_values(y_TD, want, "TD", given, what=f"y_TD on rank {rank}", rtol=rtol, atol=atol)
                if gradients:
                    given["dy_TD"] = case.cotangents_R[rank]
                    expect_gradients(grads, case.grads_R[rank], LEARNT, given, rtol=1e-3, atol=1e-4)
        return answers

    @criterion(
        3,
        "one expert on each rank: the weighted sum that one process computes",
        hint="A token's copies came back in the order of the plan. What brings them to their token?",
    )
    def test_one_expert_each(self, subject, rng):
        single = layer_case(chosen((2, 3), 2, 1, rng), 2, 2, 3, rng)
        self.compare(subject, single, layer_case(chosen((3, whole(rng, 4, 6)), 2, 2, rng), 2, 3, 4, rng))

    @criterion(
        3,
        "several experts on each rank, and different loads",
        hint="Rows arrive grouped by sender. What does `grouped_ffn` want them grouped by?",
    )
    def test_several(self, subject, rng):
        self.compare(subject, layer_case(chosen((4, whole(rng, 5, 7), 3), 6, 3, rng), 6, 3, 4, rng))

    @criterion(
        3,
        "gradients of tokens, weights and experts are those of one process",
        hint="Which of your two exchanges does the gradient of an expert pass through, and which that of a token?",
    )
    def test_gradients(self, subject, rng):
        case = layer_case(chosen((whole(rng, 5, 7), 4), 4, 2, rng), 4, 3, 4, rng)
        self.compare(subject, case, gradients=True)

    @criterion(
        2,
        "ranks without rows, and ranks without tokens; an idle expert's gradient is zeros",
        hint="All tokens go to rank 0. What must the other ranks still do, forward and backward?",
    )
    def test_idle(self, subject, rng):
        case = layer_case(chosen((3, 0, whole(rng, 2, 4)), 6, 2, rng, among=(0, 1)), 6, 3, 4, rng)
        self.compare(subject, case, gradients=True)

    @criterion(
        2,
        "`group` may be a part of all ranks",
        hint="Which number of ranks divides the experts: that of the group, or that of the world?",
    )
    def test_subgroup(self, subject, rng):
        idx_R = chosen((3, whole(rng, 4, 6)), 6, 2, rng)
        self.compare(subject, layer_case(idx_R, 6, 3, 4, rng, ranks=(0, 2)))

    @criterion(
        4,
        "the whole of it: a subgroup, several experts, idle ranks and gradients at once",
        hint="The lines above hold on inputs of their own. What is different about this one?",
    )
    def test_together(self, subject, rng):
        idx_R = chosen((whole(rng, 3, 5), 4), 6, 2, rng)
        quiet = chosen((3, 0), 6, 2, rng, among=(0, 2))
        cases = [layer_case(idx, 6, 4, 3, rng, ranks=(0, 2)) for idx in (idx_R, quiet)]
        self.compare(subject, *cases, gradients=True)

    @criterion(
        1,
        "float64 and strided inputs work; the dtype of x comes back; nothing is edited",
        hint="Which dtype do your buffers have, and does a step of yours write into x_TD?",
    )
    def test_other_inputs(self, subject, rng):
        case = layer_case(chosen((3, whole(rng, 4, 5)), 4, 2, rng), 4, 3, 5, rng, dtype=torch.float64)
        for args in case.args_R:
            args[:6] = strided(tuple(args[:6]))
        (ranks,) = self.compare(subject, case, rtol=1e-9, atol=1e-9)
        for rank, out in enumerate(ranks):
            given = shown(case, rank, LAYER)
            expect_dtype(out.value[0], torch.float64, given, what="y_TD")
            for name, before, after in zip(LAYER.split(), case.args_R[rank], out.inputs, strict=False):
                expect(torch.equal(before, after), f"{name} was edited in place", given)

    def behaviour(self, subject):
        rng = seed(961)
        full = layer_case(chosen((4, 5, 3), 6, 3, rng), 6, 3, 4, rng)
        single = layer_case(chosen((3, 4), 2, 2, rng), 2, 3, 4, rng)
        idle = layer_case(chosen((3, 0, 2), 6, 2, rng, among=(0, 1)), 6, 3, 4, rng)
        apart = layer_case(chosen((3, 4), 6, 2, rng), 6, 3, 4, rng, ranks=(0, 2))
        double = layer_case(chosen((2, 3), 4, 2, rng), 4, 3, 2, rng, dtype=torch.float64)
        ask = [(full, True), (single, False), (idle, True), (apart, False)]
        replies = [layer(subject, [case], gradients) for case, gradients in ask]
        return [*replies, self.digits(layer(subject, [double]), double)]

    @staticmethod
    def digits(out, case):
        """The dtype of each rank's result, and whether all its digits are right; or the exception."""
        if out.error:
            return out.error
        results = [(rank.value[0], want) for rank, want in zip(out.value[0], case.want_R, strict=True)]
        tensors = [(y, want) for y, want in results if isinstance(y, torch.Tensor) and y.shape == want.shape]
        return [[str(y.dtype), torch.allclose(y.double(), want, rtol=1e-9, atol=1e-9)] for y, want in tensors]


STEP = "load_R seconds_per_token bytes_out bandwidth latency"


@grades("step_time", hidden=4)
class TestStepTime:
    def compare(self, subject, *args):
        given = named(STEP, args)
        want = right.step_time(*args)
        out = subject.run(call, "step_time", *args)
        expect_value(returned(out, given), want, given, what="the number of seconds", atol=1e-5 * want)
        return out, given

    @staticmethod
    def loads(ranks, rng):
        """Different loads, the largest not at an end."""
        load_R = torch.randperm(40, generator=rng)[:ranks].sort().values + 5
        return load_R.roll(whole(rng, 1, ranks - 1) if ranks > 2 else 1)

    @criterion(
        3,
        "without communication: the rank with the largest load decides",
        hint="All ranks compute at the same time. For which of them do the others wait?",
    )
    def test_slowest(self, subject, rng):
        self.compare(subject, torch.tensor([1, 4, 2]), 0.5, 0.0, 10.0, 0.0)
        self.compare(subject, self.loads(whole(rng, 4, 6), rng), 0.25, 0.0, 8.0, 0.0)

    @criterion(
        3,
        "two exchanges, each the latency and the bytes at the bandwidth",
        hint="How often does a token cross the network, and how long do 6 bytes take at 3 bytes a second?",
    )
    def test_exchanges(self, subject, rng):
        for bytes_out, bandwidth, latency in ((12.0, 4.0, 0.0), (0.0, 4.0, 3.0), (30.0, 4.0, 0.75)):
            self.compare(subject, torch.tensor([0, 0]), 0.5, bytes_out, bandwidth, latency)
        self.compare(subject, self.loads(3, rng), 2.0, float(whole(rng, 30, 90)), 16.0, 1.5)

    test_together = together(3, test_slowest, test_exchanges)

    @criterion(
        1,
        "a Python float, whether loads are counts or shares; nothing is edited",
        hint="What does `max()` of a tensor return?",
    )
    def test_float(self, subject, rng):
        for load_R in (self.loads(4, rng), torch.rand(5, generator=rng, dtype=torch.float64)):
            args = (strided(load_R), 0.5, 8.0, 4.0, 1.0)
            out, given = self.compare(subject, *args)
            expect_type(out.value, float, given, what="the number of seconds")
            expect_untouched(out, args, STEP.split())

    def behaviour(self, subject):
        loads = torch.tensor([7, 2, 11, 4])
        cases = (
            (loads, 0.5, 0.0, 8.0, 0.0),
            (0 * loads, 0.5, 24.0, 8.0, 0.0),
            (0 * loads, 0.5, 0.0, 8.0, 3.0),
            (loads, 0.5, 40.0, 8.0, 1.5),
            (loads[:2], 2.0, 9.0, 4.0, 0.25),
        )
        return [typed(subject.run(call, "step_time", *args)) for args in cases]


PLACE = "load_E num_ranks"


def wasteful(load_E, num_ranks, *rules):
    """Whether every other rule of placement gives another answer."""
    want = right.place_experts(load_E, num_ranks)
    return all(not torch.equal(rule(load_E, num_ranks), want) for rule in rules)


def by_blocks(load_E, num_ranks):
    return torch.arange(len(load_E)) // (len(load_E) // num_ranks)


def dealt(load_E, num_ranks):
    """Heaviest first, to one rank after the other."""
    order = load_E.argsort(descending=True, stable=True)
    return torch.empty_like(order).index_copy(0, order, torch.arange(len(order)) % num_ranks)


def back_and_forth(load_E, num_ranks):
    """Heaviest first, from the first rank to the last and back."""
    place_E = torch.empty(len(load_E), dtype=torch.int64)
    place_E[load_E.argsort(descending=True, stable=True)] = torch.arange(len(load_E))
    turn_E, rank_E = place_E // num_ranks, place_E % num_ranks
    return torch.where(turn_E % 2 == 0, rank_E, num_ranks - 1 - rank_E)


def unlimited(load_E, num_ranks):
    """Heaviest first onto the lightest rank, whether it has room or not."""
    total, rank_of = [0.0] * num_ranks, [0] * len(load_E)
    for expert in load_E.argsort(descending=True, stable=True).tolist():
        rank_of[expert] = total.index(min(total))
        total[rank_of[expert]] += float(load_E[expert])
    return torch.tensor(rank_of)


def in_order(load_E, num_ranks):
    """As they come, onto the lightest rank that has room."""
    total, held, rank_of = [0.0] * num_ranks, [0] * num_ranks, []
    for load in load_E.tolist():
        room = [r for r in range(num_ranks) if held[r] < len(load_E) // num_ranks]
        rank = min(room, key=lambda r: total[r])
        rank_of.append(rank)
        total[rank], held[rank] = total[rank] + load, held[rank] + 1
    return torch.tensor(rank_of)


def loads(ranks, here, rng, *rules):
    """Different whole loads for which all these rules go wrong."""
    while True:
        load_E = torch.randperm(300, generator=rng)[: ranks * here] + 1
        if wasteful(load_E, ranks, *rules):
            return load_E


@grades("place_experts", hidden=5)
class TestPlaceExperts:
    def compare(self, subject, load_E, num_ranks):
        given = named(PLACE, (load_E, num_ranks))
        out = subject.run(call, "place_experts", load_E, num_ranks)
        want = right.place_experts(load_E, num_ranks)
        expect_values(returned(out, given), want, "E", given, what="rank_E")
        return out

    @criterion(
        3,
        "heaviest first, each to the lightest rank so far (of equally light ones, the first)",
        hint="Which expert is placed first, and which rank is lightest after that?",
    )
    def test_greedy(self, subject, rng):
        self.compare(subject, torch.tensor([3.0, 9.0, 5.0, 4.0]), 2)
        for ranks, here in ((2, 3), (3, 4)):
            rules = (by_blocks, dealt, back_and_forth, in_order)
            load_E = loads(ranks, here, rng, *rules)
            while not torch.equal(unlimited(load_E, ranks), right.place_experts(load_E, ranks)):
                load_E = loads(ranks, here, rng, *rules)  # room is the next criterion's matter
            self.compare(subject, load_E, ranks)

    @criterion(
        3,
        "a rank that holds E/R experts is full, however light it is",
        hint="Rank 1 is the lightest and holds E/R experts already. Who takes the next one?",
    )
    def test_room(self, subject, rng):
        self.compare(subject, torch.tensor([10, 1, 2, 3]), 2)
        for ranks, here in ((2, 4), (3, 3)):
            self.compare(subject, loads(ranks, here, rng, unlimited, dealt), ranks)

    @criterion(
        2,
        "ties go to the lower index, of experts and of ranks",
        hint="Does your sort keep equals in their order, also when it runs downwards?",
    )
    def test_ties(self, subject, rng):
        self.compare(subject, torch.ones(4), 2)
        self.compare(subject, torch.tensor([5, 5, 2, 2, 5, 2]), 3)
        self.compare(subject, torch.randint(1, 4, (whole(rng, 5, 7) * 4,), generator=rng), 4)

    test_together = together(4, test_greedy, test_room, test_ties)

    @criterion(
        1,
        "a tensor of integers; float64 and strided loads work, and are not edited",
        hint="Is rank_E a tensor, and did you mark placed experts inside load_E?",
    )
    def test_other_inputs(self, subject, rng):
        load_E = strided(loads(3, 3, rng).double() / 7)
        out = self.compare(subject, load_E, 3)
        want = right.place_experts(load_E, 3)
        expect_index(out.value, want, "E", named(PLACE, (load_E, 3)), what="rank_E")
        expect_untouched(out, (load_E, 3), PLACE.split())

    def behaviour(self, subject):
        rng = seed(981)
        cases = (
            (loads(2, 3, rng, by_blocks, dealt, back_and_forth, in_order), 2),
            (loads(3, 4, rng, by_blocks, dealt, back_and_forth, in_order, unlimited), 3),
            (torch.tensor([10, 1, 2, 3]), 2),
            (torch.ones(6), 3),
            (torch.tensor([5, 5, 2, 2, 5, 2]), 3),
            (torch.randint(1, 4, (20,), generator=rng), 4),
        )
        outs = [subject.run(call, "place_experts", *args) for args in cases]
        return [*map(any_width, outs), outs[0].inputs]
