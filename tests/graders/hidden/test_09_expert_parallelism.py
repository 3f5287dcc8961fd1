"""Hidden criteria of notebook 09."""

from __future__ import annotations

import torch

from graders import oracles_parallel as right
from graders import test_09_expert_parallelism as public
from graders.common import expect_values, random_idx, whole, wholes
from graders.oracles_parallel import exchange_case, layer_case
from graders.probes import call
from graders.values import expect_value
from moe_course.grading.exercises.expect import returned
from moe_course.grading.exercises.rubric import criterion, grades


@grades("expert_rank")
class HiddenExpertRank:
    @criterion(
        4,
        "a large layer: its first, middle and last experts, and the edges of blocks",
        hint="How many experts stand between two changes of rank?",
    )
    def test_large(self, subject, rng):
        for ranks in (16, whole(rng, 9, 14)):
            experts = ranks * whole(rng, 11, 18)
            for expert in (
                0,
                experts // ranks - 1,
                experts // ranks,
                experts // 2,
                whole(rng, 40, 90),
                experts - 1,
            ):
                got = returned(subject.run(call, "expert_rank", expert, experts, ranks))
                expect_value(got, right.expert_rank(expert, experts, ranks), what="the rank")


@grades("send_counts")
class HiddenSendCounts:
    @criterion(
        4,
        "shuffled tokens and slots give the same counts; all together they are T·K, with empty ranks or not",
        hint="What do the counts of all ranks add up to?",
    )
    def test_shuffled(self, subject, rng):
        ranks, here = wholes(rng, (5, 8), (4, 6))
        for among in ((), range(here, 3 * here)):
            idx_TK = random_idx(whole(rng, 20, 30), ranks * here, 4, rng, among=among)
            shuffled_TK = idx_TK[torch.randperm(len(idx_TK), generator=rng)].flip(1)
            for given in (idx_TK, shuffled_TK):
                got = returned(subject.run(call, "send_counts", given, ranks * here, ranks))
                want = right.send_counts(idx_TK, ranks * here, ranks)
                expect_values(got, want, "R", what="counts_R")


@grades("all_to_all_bytes")
class HiddenAllToAllBytes:
    @criterion(
        4,
        "sizes of published models, on one rank, on a few and on hundreds",
        hint="Which part of the bytes stays at home with 2 ranks, and with 256?",
    )
    def test_published(self, subject, rng):
        for ranks in (1, 2, 8, 144, 256, whole(rng, 10, 60)):
            args = (whole(rng, 64, 300) * ranks, 8, 7168, 2, ranks)
            want = right.all_to_all_bytes(*args)
            got = returned(subject.run(call, "all_to_all_bytes", *args))
            expect_value(got, want, what="the number of bytes", atol=1e-9 * max(want, 1))


@grades("distinct_nodes")
class HiddenDistinctNodes:
    @criterion(
        4,
        "slots in another order change nothing; one node, and a node for each expert, are fine",
        hint="What is the smallest and what the largest number of nodes of a token?",
    )
    def test_orders(self, subject, rng):
        here = whole(rng, 3, 6)
        for nodes in (whole(rng, 4, 8), 1, 4 * here):
            experts = 4 * here if nodes in (1, 4 * here) else nodes * here
            idx_TK = random_idx(whole(rng, 12, 18), experts, 4, rng)
            for given in (idx_TK, idx_TK.flip(1), idx_TK[:, torch.randperm(4, generator=rng)]):
                got = returned(subject.run(call, "distinct_nodes", given, experts, nodes))
                expect_values(got, right.distinct_nodes(idx_TK, experts, nodes), "T", what="nodes_T")


@grades("exchange_rows")
class HiddenExchangeRows:
    @criterion(
        5,
        "four ranks, then groups of them; ranks without rows; gradients",
        hint="Whose counts does each direction need, and who has to call?",
    )
    def test_four(self, subject, rng):
        counts = torch.randint(0, 4, (4, 4), generator=rng).tolist()
        uneven = [[whole(rng, 3, 5), 1], [0, 2]]
        cases = (
            exchange_case(counts, rng, width=2),
            exchange_case(uneven, rng, ranks=(1, 3), width=5),
            exchange_case([[0, 2, 0], [0, 0, 0], [1, 0, 0]], rng, ranks=(0, 2, 3)),
        )
        public.TestExchangeRows.compare(subject, *cases, gradients=True)


@grades("expert_parallel_forward")
class HiddenExpertParallelForward:
    @criterion(
        6,
        "four ranks, then two of them with other experts; silent ranks and all gradients",
        hint="Is every step right for any number of experts on a rank, and for a rank with nothing to do?",
    )
    def test_four(self, subject, rng):
        idx_R = public.chosen((3, whole(rng, 2, 5), 0, 4), 8, 3, rng)
        pair = public.chosen((4, whole(rng, 3, 5)), 6, 2, rng, among=(3, 5))
        cases = (layer_case(idx_R, 8, 3, 2, rng), layer_case(pair, 6, 2, 3, rng, ranks=(1, 3)))
        public.TestExpertParallelForward.compare(subject, *cases, gradients=True)


@grades("step_time")
class HiddenStepTime:
    @criterion(
        4,
        "one rank more loaded than all others, with every part of the time in it",
        hint="Which of the five numbers could double without a change of your result?",
    )
    def test_skewed(self, subject, rng):
        for ranks in (2, whole(rng, 5, 9)):
            load_R = torch.randint(1, 9, (ranks,), generator=rng)
            load_R[whole(rng, 0, ranks - 1)] += whole(rng, 40, 90)
            args = (load_R, 0.125, float(whole(rng, 100, 300)), 32.0, 0.5 + whole(rng, 1, 3))
            got = returned(subject.run(call, "step_time", *args))
            expect_value(got, right.step_time(*args), what="the number of seconds", atol=1e-4)


@grades("place_experts")
class HiddenPlaceExperts:
    @criterion(
        5,
        "many experts with equal loads among them, full ranks, and one expert for each rank",
        hint="What is compared first: load, room or index?",
    )
    def test_many(self, subject, rng):
        ranks = whole(rng, 4, 6)
        skewed_E = public.loads(ranks, 5, rng, public.unlimited, public.dealt, public.in_order)
        level_E = torch.randint(1, 6, (ranks * 6,), generator=rng)
        for load_E, count in ((skewed_E, ranks), (level_E, ranks), (skewed_E[:ranks], ranks), (level_E, 1)):
            got = returned(subject.run(call, "place_experts", load_E, count))
            expect_values(got, right.place_experts(load_E, count), "E", what="rank_E")
