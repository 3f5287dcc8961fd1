"""Graders of notebook 08, what the experts learned."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from graders import oracles_specialization as right
from graders.common import expect_values, named, random_idx, seed, strided, whole
from graders.probes import call
from graders.probes.specialization import call_with_generator
from graders.stand_ins import run
from graders.values import expect_dtype, expect_type, expect_value, number
from moe_course.grading.exercises.expect import CheckFailed, expect, expect_untouched, returned
from moe_course.grading.exercises.protocol import Outcome
from moe_course.grading.exercises.rubric import criterion, grades


@grades("routing_counts", hidden=3)
class TestRoutingCounts:
    names = "idx_TK labels_T num_labels num_experts"

    def compare(self, subject, *args):
        given = named(self.names, args)
        out = subject.run(call, "routing_counts", *args)
        want = right.routing_counts(*args)
        expect_values(returned(out, given), want, "GE", given, what="counts_GE")
        return out

    @staticmethod
    def inputs(tokens, labels, experts, k, rng):
        """Every label occurs, and every expert is chosen."""
        label_T = torch.cat([torch.arange(labels), torch.randint(labels, (tokens - labels,), generator=rng)])
        shift_T = torch.cat(
            [torch.arange(experts), torch.randint(experts, (tokens - experts,), generator=rng)]
        )
        step_K = torch.randperm(experts, generator=rng)[:k]
        idx_TK = (shift_T[torch.randperm(tokens, generator=rng), None] + step_K) % experts
        return idx_TK, label_T[torch.randperm(tokens, generator=rng)], labels, experts

    @criterion(
        2,
        "K = 1: the tokens of each label that went to each expert",
        hint="Which axis of the table are the labels on, and is it a table of counts?",
    )
    def test_first_choices(self, subject, rng):
        self.compare(subject, torch.tensor([[0], [1], [1]]), torch.tensor([1, 0, 0]), 2, 2)
        self.compare(subject, *self.inputs(whole(rng, 14, 20), whole(rng, 5, 6), 4, 1, rng))
        self.compare(subject, *self.inputs(whole(rng, 9, 13), 2, whole(rng, 5, 7), 1, rng))

    @criterion(
        2,
        "K > 1: every choice of a token counts, and counts for the token's label",
        hint="What does a label's row sum to, if its tokens have K experts each?",
    )
    def test_every_choice(self, subject, rng):
        self.compare(subject, torch.tensor([[0, 2], [2, 1]]), torch.tensor([1, 0]), 2, 3)
        for labels, experts, k in ((3, 5, 2), (5, 4, 3), (whole(rng, 2, 4), 6, whole(rng, 2, 5))):
            self.compare(subject, *self.inputs(whole(rng, 9, 14), labels, experts, k, rng))

    @criterion(
        2,
        "labels without tokens and experts without choices have their zeros",
        hint="How large is your table when the last label, or the last expert, does not occur?",
    )
    def test_empty(self, subject, rng):
        self.compare(subject, torch.tensor([[1], [1]]), torch.tensor([0, 0]), 2, 3)
        idx_TK = random_idx(whole(rng, 5, 9), 8, 2, rng, among=(1, 3, 4))
        labels_T = torch.tensor([1, 2])[torch.randint(2, (len(idx_TK),), generator=rng)]
        self.compare(subject, idx_TK, labels_T, whole(rng, 4, 6), whole(rng, 6, 8))

    @criterion(
        1,
        "a tensor; strided indices work; nothing is edited",
        hint="Do you make a table of your own, and numbers of your own to count?",
    )
    def test_other_inputs(self, subject, rng):
        idx_TK, labels_T, *sizes = self.inputs(whole(rng, 8, 12), 3, 5, 2, rng)
        args = (strided(idx_TK), strided(labels_T), *sizes)
        out = self.compare(subject, *args)
        expect(isinstance(out.value, torch.Tensor), "counts_GE should be a tensor", named(self.names, args))
        expect_untouched(out, args, self.names.split())

    def behaviour(self, subject):
        args = self.inputs(13, 3, 5, 2, seed(811))
        single = self.inputs(9, 4, 3, 1, seed(812))
        out = subject.run(call, "routing_counts", *args)
        empty = torch.tensor([[1, 4], [3, 1], [4, 3]]), torch.tensor([2, 1, 2]), 4, 7
        return [
            alike(out),
            out.inputs,
            alike(subject.run(call, "routing_counts", *single)),
            alike(subject.run(call, "routing_counts", *empty)),
            alike(subject.run(call, "routing_counts", *(strided(a) for a in args[:2]), *args[2:])),
        ]


@grades("mutual_information", hidden=4)
class TestMutualInformation:
    def compare(self, subject, counts_GE):
        given = {"counts_GE": counts_GE}
        out = subject.run(call, "mutual_information", counts_GE)
        want = right.mutual_information(counts_GE)
        expect_value(returned(out, given), want, given, what="the number of bits", atol=1e-5)
        return out

    @staticmethod
    def counts(labels, experts, rng):
        """No zeros, and labels that differ in size and in what they choose."""
        size_G1 = torch.randint(2, 9, (labels, 1), generator=rng)
        counts_GE = size_G1 * torch.randint(1, 20, (labels, experts), generator=rng)
        counts_GE[0, 0] += 60
        return counts_GE

    @criterion(
        2,
        "sum of p · log2(p / (p_g · p_e)), in bits",
        hint="What does the logarithm compare p with, and to which base is it?",
    )
    def test_values(self, subject, rng):
        self.compare(subject, torch.tensor([[3, 1], [1, 3]]))
        for labels, experts in ((2, 3), (4, 3), (whole(rng, 3, 5), whole(rng, 6, 8))):
            self.compare(subject, self.counts(labels, experts, rng))

    @criterion(
        1,
        "0 when the experts know nothing of the label, however uneven the two are",
        hint="Is p compared with p_g · p_e, or with a uniform table?",
    )
    def test_independent(self, subject, rng):
        for labels, experts in ((2, 2), (3, whole(rng, 4, 6)), (1, 4)):
            row_E = torch.randint(1, 9, (experts,), generator=rng)
            size_G = torch.randperm(6, generator=rng)[:labels] + 1
            self.compare(subject, torch.outer(size_G, row_E))
        self.compare(subject, self.counts(3, 4, rng))

    @criterion(
        2,
        "cells, rows and columns without counts add nothing",
        hint="What is 0 · log 0 in this sum, and what does the computer say that it is?",
    )
    def test_zeros(self, subject, rng):
        self.compare(subject, torch.tensor([[3, 0], [0, 3]]))
        self.compare(subject, torch.diag(torch.randint(2, 9, (whole(rng, 3, 6),), generator=rng)))
        counts_GE = self.counts(4, whole(rng, 5, 7), rng)
        empty = whole(rng, 0, 3)
        counts_GE[counts_GE % 3 == 0] = 0
        counts_GE[:, whole(rng, 1, 4)] = 0
        counts_GE[empty - 1, 0] = 7
        counts_GE[empty] = 0
        self.compare(subject, counts_GE)

    @criterion(
        1,
        "ten times the counts, the same bits",
        hint="Does the formula want counts or shares of all counts?",
    )
    def test_scale(self, subject, rng):
        counts_GE = self.counts(3, whole(rng, 4, 6), rng)
        for factor in (1, 10, whole(rng, 200, 1000)):
            self.compare(subject, factor * counts_GE)

    @criterion(
        1,
        "a Python float; float and strided counts work; nothing is edited",
        hint="Which type has your answer, and do you divide in place?",
    )
    def test_other_inputs(self, subject, rng):
        counts_GE = self.counts(3, whole(rng, 4, 6), rng)
        for args in ((strided(counts_GE),), (counts_GE.float(),), (counts_GE.double(),)):
            out = self.compare(subject, *args)
            expect_type(out.value, float, {"counts_GE": args[0]}, what="the result")
            expect_untouched(out, args, ("counts_GE",))

    def behaviour(self, subject):
        counts_GE = self.counts(3, 5, seed(821))
        holes_GE = torch.tensor([[9, 0, 4, 0], [0, 0, 0, 0], [1, 0, 0, 12], [3, 0, 5, 6]])
        out = subject.run(call, "mutual_information", counts_GE)
        floats = subject.run(call, "mutual_information", counts_GE.float())
        return [
            out,
            out.inputs,
            floats,
            floats.inputs,
            near_zero(subject.run(call, "mutual_information", torch.tensor([[2, 6, 1], [4, 12, 2]]))),
            subject.run(call, "mutual_information", holes_GE),
            subject.run(call, "mutual_information", 50 * counts_GE),
            subject.run(call, "mutual_information", torch.diag(torch.tensor([4, 2, 2]))),
        ]


TOKENS = "idx_T labels_T groups_T num_labels num_experts rounds"


class PValues:
    """Documents, and what a permutation test of them may answer."""

    @staticmethod
    def documents(labels, experts, lengths):
        """idx_T, labels_T, groups_T of documents that keep to one expert each."""
        lengths = torch.as_tensor(lengths)
        columns = (torch.as_tensor(experts), torch.as_tensor(labels), torch.arange(len(lengths)))
        return tuple(column.repeat_interleave(lengths) for column in columns)

    @classmethod
    def null(cls, documents, labels, experts, rng, loyal=1.0):
        """Documents of 3 to 9 tokens alike in expert, and labels that mean nothing.

        Some bits are there all the same, and a third to two thirds of the shuffles have as many.
        """
        for _ in range(1000):
            label_of = torch.cat(
                [torch.arange(labels), torch.randint(labels, (documents - labels,), generator=rng)]
            )
            lengths = torch.randint(3, 10, (documents,), generator=rng)
            expert_of = torch.randint(experts, (documents,), generator=rng)
            idx_T, labels_T, groups_T = cls.documents(label_of, expert_of, lengths)
            stray_T = torch.rand(len(idx_T), generator=rng) >= loyal
            idx_T = torch.where(stray_T, torch.randint(experts, (len(idx_T),), generator=rng), idx_T)
            counts_GE = right.routing_counts(idx_T[:, None], labels_T, labels, experts)
            if right.mutual_information(counts_GE) > 0.2:
                least, most = right.tails(idx_T, labels_T, groups_T)
                if least > 0.33 and most < 0.67:
                    return idx_T, labels_T, groups_T, labels, experts
        raise AssertionError("no such documents")

    @staticmethod
    def as_good(p, rounds, given):
        """How many shuffles a p-value counted: p = (1 + count) / (1 + rounds)."""
        if type(number(p)) not in (int, float):
            raise CheckFailed(f"p should be a number, not {type(p).__name__}", given, None, p)
        p = float(number(p))
        count = p * (1 + rounds) - 1 if math.isfinite(p) else math.nan
        whole = math.isfinite(count) and abs(count - round(count)) < 1e-4 and 0 <= round(count) <= rounds
        counts = f"a count from 0 to {rounds}" if rounds else "a count of 0"
        expect(whole, f"p = {p} is not (1 + count) / (1 + {rounds}) for {counts}", given)
        return round(count)

    @staticmethod
    def call(subject, args, rng):
        """One call with a generator of its own."""
        return run(
            subject,
            "permutation_p_value",
            call_with_generator,
            "permutation_p_value",
            args,
            seed=whole(rng, 0, 10**6),
        )

    def p_value(self, subject, args, rng):
        """The count behind the p-value of `args`, and how to show the case."""
        given = named(TOKENS, args)
        return self.as_good(returned(self.call(subject, args, rng), given)[0], args[-1], given), given

    def share(self, subject, args, least, most, rng):
        """The count is plausible, if a shuffle counts with a probability between `least` and `most`."""
        count, given = self.p_value(subject, args, rng)
        rounds = args[-1]
        likely = f"{least:.3f}" if least == most else f"{least:.3f} to {most:.3f}"
        message = (
            f"{count} of {rounds} shuffles counted; of all possible shuffles a share of {likely} is as good"
        )
        expect(right.plausible(count, rounds, least, most), message, given)


@grades("permutation_p_value", hidden=12)
class TestPermutationPValue(PValues):
    @criterion(
        2,
        "p is never 0: the labels as they are count as one of 1 + rounds, and without a round p is 1",
        hint="If no shuffle reaches the observed bits, which p do you return?",
    )
    def test_never_zero(self, subject, rng):
        which = torch.arange(2).repeat(20)[torch.randperm(40, generator=rng)]
        lengths = torch.randint(1, 4, (40,), generator=rng)
        for rounds in (0, 1, whole(rng, 20, 50)):
            args = (*self.documents(which, which, lengths), 2, 2, rounds)
            count, given = self.p_value(subject, args, rng)
            expect(count == 0, f"no shuffle should share as many bits as these labels, {count} did", given)

    @criterion(
        2,
        "a shuffle that is as good as the labels themselves counts: ties",
        hint="Do you count the shuffles with more bits, or those with at least as many?",
    )
    def test_ties(self, subject, rng):
        rounds = whole(rng, 20, 40)
        two = self.documents([0, 1], [1, 0], [4, 4])
        mixed = self.documents([0, 1, 1, 0], [0, 0, 0, 0], [4, 4, 4, 4])
        mixed = (torch.tensor([0, 1]).repeat(8), *mixed[1:])
        for tokens in (two, mixed):
            count, given = self.p_value(subject, (*tokens, 2, 2, rounds), rng)
            expect(count == rounds, f"every shuffle is as good here, and {count} of {rounds} counted", given)

    @criterion(
        2,
        "four documents, two labels each: a third of the shuffles is as good",
        hint="Does a shuffle keep how many documents each label has, and is every round a new one?",
    )
    def test_four_documents(self, subject, rng):
        which = torch.tensor([0, 0, 1, 1])[torch.randperm(4, generator=rng)]
        self.share(subject, (*self.documents(which, which, [4] * 4), 2, 2, 600), 1 / 3, 1 / 3, rng)

    @criterion(
        3,
        "labels are shuffled between documents: tokens of a document keep one label",
        hint="If the tokens of a document are alike, how many things are there to shuffle?",
    )
    def test_documents(self, subject, rng):
        for documents, labels, experts in ((8, 2, 3), (whole(rng, 7, 9), 2, 4)):
            args = self.null(documents, labels, experts, rng)
            self.share(subject, (*args, 400), *right.tails(*args[:3]), rng)

    @criterion(
        2,
        "documents of different length: a label goes to a whole document, however long",
        hint="When a short document's label goes to a long one, how many tokens have it?",
    )
    def test_lengths(self, subject, rng):
        many, rounds = whole(rng, 4, 6), 300
        lengths = [whole(rng, 16, 24)] + [whole(rng, 2, 3)] * many
        labels = [1] * len(lengths)
        labels[whole(rng, 1, many)] = (
            0  # a short document is alone with its label: any other would do as well
        )
        tokens = self.documents(labels, [0] + [1] * many, lengths)
        self.share(subject, (*tokens, 2, 2, rounds), 1.0, 1.0, rng)
        tokens = self.documents([0] + [1] * many, [0, 0, 0] + [1] * (many - 2), lengths)  # the long one is
        self.share(subject, (*tokens, 2, 2, rounds), 1 / (1 + many), 1 / (1 + many), rng)

    @criterion(
        2,
        "document ids are any numbers, and the tokens of a document need not stand together",
        hint="How many documents are there, and how do you know which tokens belong to one?",
    )
    def test_ids(self, subject, rng):
        idx_T, labels_T, groups_T, *sizes = self.null(8, 2, 3, rng)
        tails = right.tails(idx_T, labels_T, groups_T)
        ids = 11 + 5 * torch.randperm(20, generator=rng)[:8]
        order_T = torch.randperm(len(idx_T), generator=rng)
        tokens = idx_T[order_T], labels_T[order_T], ids[groups_T[order_T]]
        self.share(subject, (*tokens, *sizes, 400), *tails, rng)

    @criterion(
        2,
        "all randomness comes from the generator: repeatable, and new with every call",
        hint="Who shuffles: the generator you were given, or one that nobody else can set?",
    )
    def test_generator(self, subject, rng):
        args = (*self.null(8, 2, 3, rng), 30)
        given, start = named(TOKENS, args), whole(rng, 0, 10**6)

        def p_values(first, elsewhere):
            out = run(
                subject,
                "permutation_p_value",
                call_with_generator,
                "permutation_p_value",
                args,
                first,
                12,
                elsewhere,
            )
            counts = [self.as_good(p, 30, given) for p in returned(out, given)]
            expect(len(set(counts)) > 1, "twelve calls with one generator gave the same p each time", given)
            return counts

        once = p_values(start, 1)
        expect(once == p_values(start, 2), "the same generator state gave another p", given)
        expect(once != p_values(start + 1, 1), "another generator state gave the same p-values", given)

    @criterion(
        1,
        "a Python float; strided inputs work; nothing is edited",
        hint="Which type has p, and whose labels do you shuffle: a list of your own?",
    )
    def test_other_inputs(self, subject, rng):
        args = self.null(8, 2, 3, rng)
        tails = right.tails(*args[:3])
        args = (*(strided(column_T) for column_T in args[:3]), *args[3:], 200)
        p = returned(self.call(subject, args, rng), named(TOKENS, args))[0]
        self.as_good(p, args[-1], named(TOKENS, args))
        expect_type(p, float, named(TOKENS, args), what="p")
        self.share(subject, args, *tails, rng)
        which = torch.arange(4).repeat(6)  # 24 documents: no shuffle restores the labels by chance
        args = (*self.documents(which, which, [2] * 24), 4, 4, 3)
        expect_untouched(self.call(subject, args, rng), args, TOKENS.split())

    def behaviour(self, subject):
        """How many shuffles counted, in words: draws differ from one right answer to the next."""
        even = torch.arange(2).repeat(20)
        pure = torch.tensor([0, 1, 0, 1])
        tokens = self.null(8, 2, 3, seed(831))
        tails = right.tails(*tokens[:3])
        order_T = torch.randperm(len(tokens[0]), generator=seed(832))
        apart = (tokens[0][order_T], tokens[1][order_T], 7 + 4 * tokens[2][order_T])
        gaps = (*tokens[:2], 7 + 4 * tokens[2])
        short = self.documents([1, 1, 0, 1, 1], [0, 1, 1, 1, 1], [20, 2, 2, 2, 2])
        long = self.documents([0, 1, 1, 1, 1], [0, 0, 0, 1, 1], [20, 2, 2, 2, 2])
        cases = [
            ((*self.documents(even, even, [2] * 40), 2, 2, 30), (0.0, 0.0)),
            ((*self.documents([0, 1], [1, 0], [4, 4]), 2, 2, 30), (1.0, 1.0)),
            ((*self.documents(pure, pure, [4] * 4), 2, 2, 600), (1 / 3, 1 / 3)),
            ((*tokens, 400), tails),
            ((*short, 2, 2, 300), (1.0, 1.0)),
            ((*long, 2, 2, 300), (0.2, 0.2)),
            ((*gaps, *tokens[3:], 400), tails),
            ((*apart, *tokens[3:], 400), tails),
        ]
        calls = [
            run(subject, "permutation_p_value", call_with_generator, "permutation_p_value", args, 8)
            for args, _ in cases
        ]
        many = [
            run(
                subject,
                "permutation_p_value",
                call_with_generator,
                "permutation_p_value",
                (*tokens, 30),
                first,
                12,
                elsewhere,
            )
            for first, elsewhere in ((1, 1), (1, 2), (2, 1))
        ]
        repeated = [out.error or len(set(map(repr, out.value))) > 1 for out in many]
        first, other_state, other_start = (repr(out.value) for out in many)
        same = [first == other_state, first == other_start]
        shares = [in_words(out, *case) for out, case in zip(calls, cases, strict=True)]
        kind = calls[3].error or type(calls[3].value[0]).__name__
        return [*shares, kind, calls[3].inputs, repeated, same]


@grades("repeat_rate", hidden=3)
class TestRepeatRate:
    def compare(self, subject, idx_BS):
        given = {"idx_BS": idx_BS}
        out = subject.run(call, "repeat_rate", idx_BS)
        expect_value(returned(out, given), right.repeat_rate(idx_BS), given, what="the share")
        return out

    @staticmethod
    def runs(rows, length, experts, rng):
        """Sequences in which a token often repeats its neighbour, and with other experts in every row."""
        idx_BS = torch.randint(experts, (rows, length), generator=rng)
        for position in range(1, length):
            stays_B = torch.rand(rows, generator=rng) < 0.4
            idx_BS[stays_B, position] = idx_BS[stays_B, position - 1]
        return idx_BS

    @criterion(
        2,
        "one sequence: the share of neighbours with the same expert",
        hint="How many pairs of neighbours does a sequence of S tokens have?",
    )
    def test_one_sequence(self, subject, rng):
        self.compare(subject, torch.tensor([[2, 2, 2, 1]]))
        for length in (6, 2 * whole(rng, 4, 6)):  # an odd number of pairs: never one half
            self.compare(subject, self.runs(1, length, 3, rng))

    @criterion(
        2,
        "several sequences: neighbours within a sequence, never across",
        hint="Is the first token of a row the neighbour of the last token of the row before?",
    )
    def test_several_sequences(self, subject, rng):
        self.compare(subject, torch.tensor([[0, 1], [1, 2], [2, 2]]))
        for rows, length in ((3, 4), (whole(rng, 4, 6), 3), (2, whole(rng, 5, 9))):
            idx_BS = self.runs(rows, length, 4, rng)
            idx_BS[1:, 0] = idx_BS[:-1, -1]  # each row starts as the one before ends
            self.compare(subject, idx_BS)

    @criterion(
        2,
        "1 when a sequence keeps its expert, 0 when no neighbour has it; the two may come from different rows",
        hint="What are the largest and the smallest share there can be?",
    )
    def test_extremes(self, subject, rng):
        length = whole(rng, 4, 7)
        same_BS = torch.arange(3)[:, None].expand(3, length).contiguous()
        changing_BS = (torch.arange(length) + same_BS) % whole(rng, 3, 5)
        for idx_BS in (same_BS, changing_BS, torch.cat([same_BS, changing_BS[:2]])):
            self.compare(subject, idx_BS)

    @criterion(
        1,
        "a Python float; strided indices work; nothing is edited",
        hint="Which type has your answer, and do you reshape or view?",
    )
    def test_other_inputs(self, subject, rng):
        idx_BS = strided(self.runs(3, whole(rng, 5, 8), 3, rng))
        out = self.compare(subject, idx_BS)
        expect_type(out.value, float, {"idx_BS": idx_BS}, what="the result")
        expect_untouched(out, (idx_BS,), ("idx_BS",))

    def behaviour(self, subject):
        idx_BS = torch.tensor([[0, 0, 1, 2, 2], [2, 2, 2, 1, 0], [0, 3, 0, 0, 0]])
        out = subject.run(call, "repeat_rate", idx_BS)
        return [
            out,
            out.inputs,
            subject.run(call, "repeat_rate", torch.tensor([[4, 1, 1, 3, 3, 3, 4]])),
            subject.run(call, "repeat_rate", torch.tensor([[1, 2], [2, 2], [2, 3], [3, 1]])),
            subject.run(call, "repeat_rate", torch.tensor([[1, 1, 1], [0, 0, 0]])),
            subject.run(call, "repeat_rate", torch.tensor([[1, 2, 1], [0, 2, 0]])),
            subject.run(call, "repeat_rate", strided(idx_BS)),
        ]


@grades("coactivation", hidden=5)
class TestCoactivation:
    names = "idx_TK num_experts"

    def compare(self, subject, *args):
        given = named(self.names, args)
        out = subject.run(call, "coactivation", *args)
        expect_values(returned(out, given), right.coactivation(*args), "EE", given, what="counts_EE")
        return out

    @staticmethod
    def choices(experts, k, rng):
        """Experts (T, K) in any order, none of them idle."""
        every_TK = (torch.arange(experts)[:, None] + torch.randperm(experts, generator=rng)[:k]) % experts
        idx_TK = torch.cat([every_TK, random_idx(whole(rng, 5, 9), experts, k, rng)])
        return idx_TK[torch.randperm(len(idx_TK), generator=rng)]

    @criterion(
        2,
        "K = 2: how many tokens chose the two experts",
        hint="Which two entries of the table does a token with experts a and b add to?",
    )
    def test_pairs(self, subject, rng):
        self.compare(subject, torch.tensor([[0, 1], [0, 1], [1, 2]]), 3)
        for experts in (4, whole(rng, 5, 7)):
            self.compare(subject, self.choices(experts, 2, rng).sort(dim=1).values, experts)

    @criterion(
        2,
        "the order of a token's experts says nothing: the table is symmetric",
        hint="Does a token with experts (3, 1) add to the same entries as one with (1, 3)?",
    )
    def test_order(self, subject, rng):
        self.compare(subject, torch.tensor([[2, 0], [0, 2], [1, 2]]), 3)
        idx_TK = self.choices(5, 2, rng)
        for args in ((idx_TK, 5), (idx_TK.flip(1), 5)):
            self.compare(subject, *args)

    @criterion(
        2,
        "K > 2: every pair among the K experts",
        hint="How many pairs do K experts make, and are they all next to each other?",
    )
    def test_more_choices(self, subject, rng):
        self.compare(subject, torch.tensor([[0, 1, 2]]), 3)
        for experts, k in ((5, 3), (6, 4), (whole(rng, 7, 8), whole(rng, 3, 5)), (4, 4)):
            self.compare(subject, self.choices(experts, k, rng), experts)

    @criterion(
        2,
        "K = 1: nobody has company, so there are only zeros, also on the diagonal",
        hint="Is an expert together with itself?",
    )
    def test_alone(self, subject, rng):
        experts = whole(rng, 3, 6)
        self.compare(subject, torch.randint(experts, (9, 1), generator=rng), experts)
        self.compare(subject, torch.tensor([[1, 0], [0, 1]]), 2)

    @criterion(
        2,
        "experts that nobody chose have their zeros, also the last ones",
        hint="How large is your table when the last expert does not occur?",
    )
    def test_empty(self, subject, rng):
        self.compare(subject, torch.tensor([[1, 0]]), 4)
        self.compare(subject, random_idx(whole(rng, 6, 9), 8, 3, rng, among=(1, 2, 4, 5)), whole(rng, 7, 9))

    @criterion(
        1,
        "a tensor; strided indices work; nothing is edited",
        hint="Do you sort in a tensor of your own?",
    )
    def test_other_inputs(self, subject, rng):
        args = (strided(self.choices(5, 3, rng)), 5)
        out = self.compare(subject, *args)
        expect(isinstance(out.value, torch.Tensor), "counts_EE should be a tensor", named(self.names, args))
        expect_untouched(out, args, self.names.split())

    def behaviour(self, subject):
        idx_TK = torch.tensor([[0, 3, 1], [3, 0, 2], [1, 3, 0], [2, 4, 0], [4, 2, 3]])
        out = subject.run(call, "coactivation", idx_TK, 5)
        return [
            alike(out),
            out.inputs,
            alike(subject.run(call, "coactivation", torch.tensor([[0, 2], [2, 0], [2, 1], [0, 2]]), 3)),
            alike(subject.run(call, "coactivation", torch.tensor([[2], [0], [1], [2]]), 3)),
            alike(subject.run(call, "coactivation", torch.tensor([[1, 2, 4], [4, 2, 3]]), 7)),
            alike(subject.run(call, "coactivation", strided(idx_TK), 5)),
        ]


@grades("ablation_effect", hidden=3)
class TestAblationEffect:
    names = "ce_by_label_base_G ce_by_label_ablated_GE"

    @staticmethod
    def losses(labels, experts, rng, dtype=torch.float32, least=0.05):
        """Losses of very different level, and rises from `least` on."""
        base_G = 1 + 4 * torch.rand(labels, generator=rng, dtype=torch.float64)
        rise_GE = torch.rand(labels, experts, generator=rng, dtype=torch.float64) + least
        return base_G.to(dtype), (base_G[:, None] + rise_GE).to(dtype)

    def compare(self, subject, base_G, ablated_GE):
        given = named(self.names, (base_G, ablated_GE))
        out = subject.run(call, "ablation_effect", base_G, ablated_GE)
        want = right.ablation_effect(base_G, ablated_GE)
        expect_values(returned(out, given), want, "GE", given, what="delta_GE", atol=1e-5)
        return out

    @criterion(
        2,
        "the loss without the expert, less the loss with it",
        hint="Which of the two losses do you take from which, and in what unit is the answer?",
    )
    def test_values(self, subject, rng):
        self.compare(subject, torch.tensor([2.0]), torch.tensor([[2.5, 3.0]]))
        for labels, experts in ((2, 5), (whole(rng, 3, 4), whole(rng, 6, 8)), (5, 3)):
            self.compare(subject, *self.losses(labels, experts, rng))

    @criterion(
        2,
        "as many labels as experts: each row is compared with its own label",
        hint="Along which axis does PyTorch lay a vector over a square table?",
    )
    def test_square(self, subject, rng):
        self.compare(subject, torch.tensor([1.0, 4.0]), torch.tensor([[1.5, 1.0], [4.0, 6.0]]))
        for size in (3, whole(rng, 4, 6)):
            self.compare(subject, *self.losses(size, size, rng))

    @criterion(
        2,
        "an expert that did harm has a negative effect; one that did nothing has 0",
        hint="Can a loss fall when an expert is switched off?",
    )
    def test_signs(self, subject, rng):
        self.compare(subject, torch.tensor([2.0]), torch.tensor([[1.5, 2.0]]))
        base_G, ablated_GE = self.losses(3, 5, rng, least=-0.5)
        ablated_GE[:, whole(rng, 0, 4)] = base_G
        ablated_GE[whole(rng, 0, 2)] = 0.5 * base_G.min()
        self.compare(subject, base_G, ablated_GE)

    @criterion(
        1,
        "float64 and strided losses work, in their own dtype; nothing is edited",
        hint="Which dtype comes back, and do you subtract in place?",
    )
    def test_other_inputs(self, subject, rng):
        for dtype in (torch.float64, torch.float32):
            args = tuple(strided(losses) for losses in self.losses(3, whole(rng, 4, 6), rng, dtype))
            out = self.compare(subject, *args)
            expect_dtype(out.value, dtype, named(self.names, args), what="delta_GE")
            expect_untouched(out, args, self.names.split())

    def behaviour(self, subject):
        wide, square = self.losses(2, 4, seed(861), least=-0.5), self.losses(3, 3, seed(862))
        out = subject.run(call, "ablation_effect", *wide)
        return [
            out,
            out.inputs,
            subject.run(call, "ablation_effect", *square),
            subject.run(call, "ablation_effect", *self.losses(3, 2, seed(863), torch.float64)),
            subject.run(call, "ablation_effect", *(strided(losses) for losses in wide)),
        ]


def alike(value):
    """Counts are as good in one dtype as in another: show them as int64."""
    if isinstance(value, torch.Tensor) and torch.equal(value.double(), value.double().round()):
        return value.long()
    return replace(value, value=alike(value.value)) if isinstance(value, Outcome) else value


def near_zero(out):
    """0 to rounding is 0, whatever its sign."""
    zero = type(out.value) is float and abs(out.value) < 1e-5
    return replace(out, value=0.0) if zero else out


def in_words(out, args, tails):
    """A p-value's count of shuffles: impossible, none, all, as many as there should be, too few or too many."""
    if out.error:
        return out.error
    p, rounds = out.value[0], args[-1]
    try:
        count = PValues.as_good(p, rounds, {})
    except CheckFailed:
        return "impossible", p
    if right.plausible(count, rounds, *tails):
        return "right"
    return {0: "none", rounds: "all"}.get(count, "too few" if count < rounds * tails[0] else "too many")
