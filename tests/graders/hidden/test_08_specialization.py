"""Hidden criteria of notebook 08: bigger cases, symmetries, and what a valid p-value does when nothing is there."""

from __future__ import annotations

import torch

from graders import oracles_specialization as right
from graders import test_08_specialization as public
from graders.common import expect_values, named, random_idx, whole
from graders.probes import call
from graders.values import expect_value
from moe_course.grading.exercises.expect import expect, returned
from moe_course.grading.exercises.rubric import criterion, grades


@grades("routing_counts")
class HiddenRoutingCounts:
    @criterion(
        3,
        "many tokens, labels and experts: the counts sum to T·K",
        hint="Is every choice of every token somewhere in your table, once?",
    )
    def test_many(self, subject, rng):
        tokens, labels, experts, k = whole(rng, 150, 250), whole(rng, 9, 14), whole(rng, 20, 30), 6
        labels_T = torch.randint(labels - 2, (tokens,), generator=rng)
        idx_TK = random_idx(tokens, experts, k, rng, among=range(2, 17))
        args = (idx_TK, labels_T, labels, experts)
        given = named("idx_TK labels_T num_labels num_experts", args)
        got = returned(subject.run(call, "routing_counts", *args), given)
        expect_values(got, right.routing_counts(*args), "GE", given, what="counts_GE")


@grades("mutual_information")
class HiddenMutualInformation:
    @criterion(
        2,
        "labels and experts change places or are renamed: the same bits",
        hint="Does the label tell more about the expert than the expert about the label?",
    )
    def test_symmetric(self, subject, rng):
        labels, experts = whole(rng, 3, 5), whole(rng, 7, 11)
        counts_GE = torch.randint(0, 40, (labels, experts), generator=rng) ** 2
        counts_GE[0, 0] += 1
        counts_GE[1, 2] = counts_GE[:, 1] = 0
        want = right.mutual_information(counts_GE)
        order_G, order_E = torch.randperm(labels, generator=rng), torch.randperm(experts, generator=rng)
        for shown in (counts_GE, counts_GE.T.contiguous(), counts_GE[order_G][:, order_E]):
            given = {"counts_GE": shown}
            got = returned(subject.run(call, "mutual_information", shown), given)
            expect_value(got, want, given, what="the number of bits", atol=1e-5)

    @criterion(
        2,
        "experts that nobody chose, appended to the table, change nothing; a label for each expert gives log2",
        hint="How many bits does it take to say which of n equally frequent labels it is?",
    )
    def test_appended(self, subject, rng):
        experts = whole(rng, 5, 12)
        counts_GE = whole(rng, 2, 9) * torch.eye(experts, dtype=torch.int64)
        padded_GE = torch.zeros(experts + whole(rng, 1, 3), experts + whole(rng, 1, 4), dtype=torch.int64)
        padded_GE[:experts, :experts] = counts_GE
        for shown in (counts_GE, padded_GE):
            given = {"counts_GE": shown}
            got = returned(subject.run(call, "mutual_information", shown), given)
            expect_value(
                got, right.mutual_information(counts_GE), given, what="the number of bits", atol=1e-5
            )


@grades("permutation_p_value")
class HiddenPermutationPValue(public.TestPermutationPValue):
    def every_rule(self, subject, rng):
        """The visible criteria of the idea once more: they draw other documents each time."""
        self.test_never_zero(subject, rng)
        self.test_ties(subject, rng)
        self.test_four_documents(subject, rng)
        self.test_documents(subject, rng)
        self.test_lengths(subject, rng)
        self.test_ids(subject, rng)
        self.test_generator(subject, rng)

    @criterion(
        6,
        "three labels, documents that stray from their expert, a label that nobody has",
        hint="Is a shuffle of the documents' labels all that your null does?",
    )
    def test_three_labels(self, subject, rng):
        *tokens, labels, experts = self.null(whole(rng, 6, 7), 3, 4, rng, loyal=0.8)
        self.share(subject, (*tokens, labels + 1, experts + 1, 400), *right.tails(*tokens), rng)
        self.every_rule(subject, rng)

    @criterion(
        6,
        "where labels mean nothing, one p in ten is below a tenth, and no more",
        hint="Documents alike inside, labels drawn by lot: how often may a test see something there?",
    )
    def test_valid(self, subject, rng):
        sets, small = 40, 0
        for _ in range(sets):
            documents = whole(rng, 10, 14)
            label_of, expert_of = torch.randint(3, (2, documents), generator=rng)
            lengths = torch.randint(4, 9, (documents,), generator=rng)
            args = (*self.documents(label_of, expert_of, lengths), 3, 3, 19)
            count, given = self.p_value(subject, args, rng)
            small += 1 + count <= 2  # p ≤ 0.1
        message = f"{small} of {sets} data sets without any relation have p ≤ 0.1"
        expect(right.plausible(small, sets, 0.0, 0.1), message, given)
        self.every_rule(subject, rng)


@grades("repeat_rate")
class HiddenRepeatRate:
    @criterion(
        3,
        "a batch of many sequences, its rows shuffled and its experts renamed: the same share",
        hint="Does it matter which sequence comes first in the batch, or what an expert is called?",
    )
    def test_renamed(self, subject, rng):
        rows, length, experts = whole(rng, 12, 20), whole(rng, 25, 40), whole(rng, 3, 5)
        idx_BS = torch.randint(experts, (rows, length), generator=rng)
        idx_BS[:, 1::3] = idx_BS[:, ::3][:, : idx_BS[:, 1::3].shape[1]]
        idx_BS[:3] = torch.arange(3)[:, None]  # sequences that keep their expert
        renamed_E = torch.randperm(50, generator=rng)[:experts]
        restless_BS, loyal_BS = (
            torch.arange(length).expand(2, length) % 3,
            torch.arange(3)[:, None].repeat(1, 4),
        )
        for shown, share in ((restless_BS, 0.0), (loyal_BS, 1.0)):
            given = {"idx_BS": shown}
            expect_value(
                returned(subject.run(call, "repeat_rate", shown), given), share, given, what="the share"
            )
        want = right.repeat_rate(idx_BS)
        for shown in (idx_BS, renamed_E[idx_BS[torch.randperm(rows, generator=rng)]]):
            given = {"idx_BS": shown}
            expect_value(
                returned(subject.run(call, "repeat_rate", shown), given), want, given, what="the share"
            )


@grades("coactivation")
class HiddenCoactivation:
    @criterion(
        5,
        "many experts, several choices in any order: each row sums to K − 1 times its expert's tokens",
        hint="How many partners does each choice of a token have?",
    )
    def test_many(self, subject, rng):
        experts, k = whole(rng, 20, 30), whole(rng, 5, 7)
        idx_TK = random_idx(whole(rng, 60, 90), experts, k, rng, among=range(1, 18))
        turned_TK = idx_TK[:, torch.randperm(k, generator=rng)]
        for shown in (idx_TK, turned_TK, idx_TK[:, :2], idx_TK[:, :1]):
            want_EE = right.coactivation(shown, experts)
            given = {"idx_TK": shown, "num_experts": experts}
            got = returned(subject.run(call, "coactivation", shown, experts), given)
            expect_values(got, want_EE, "EE", given, what="counts_EE")


@grades("ablation_effect")
class HiddenAblationEffect:
    @criterion(
        3,
        "all losses of a label a little higher, with and without the expert: the same effect",
        hint="Does the effect depend on how hard a label is to begin with?",
    )
    def test_level(self, subject, rng):
        size = whole(rng, 7, 10)
        base_G = 1 + torch.rand(size, generator=rng)
        rise_GE = torch.rand(size, size, generator=rng) - 0.3
        for level_G in (torch.zeros(size), torch.arange(size).float()):
            args = base_G + level_G, (base_G + level_G)[:, None] + rise_GE
            given = named("ce_by_label_base_G ce_by_label_ablated_GE", args)
            got = returned(subject.run(call, "ablation_effect", *args), given)
            expect_values(got, rise_GE, "GE", given, what="delta_GE", atol=1e-5)
