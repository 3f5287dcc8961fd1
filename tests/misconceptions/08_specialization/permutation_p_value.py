import torch

from moe_course.grading.judge.catalogue import caught_by


def _bits(idx_T, labels_T, num_labels, num_experts):
    cells_T = labels_T * num_experts + idx_T
    p_GE = torch.bincount(cells_T, minlength=num_labels * num_experts).view(num_labels, -1).double() / len(
        idx_T
    )
    ratio_GE = p_GE / (p_GE.sum(dim=1, keepdim=True) * p_GE.sum(dim=0)).clamp(min=1e-12)
    return torch.xlogy(p_GE, ratio_GE).sum().item()


def _documents(labels_T, groups_T):
    """Each token's document, and each document's label."""
    ids, document_T = groups_T.unique(return_inverse=True)
    return document_T, labels_T.new_zeros(len(ids)).scatter(0, document_T, labels_T)


def _p(count, rounds):
    return (1 + count) / (1 + rounds)


def _count(idx_T, labels_T, groups_T, num_labels, num_experts, rounds, shuffled, as_good=None):
    """How many rounds of `shuffled(labels, document_T)`, new labels of the tokens, are as good as the labels."""
    document_T, labels = _documents(labels_T, groups_T)
    observed = _bits(idx_T, labels_T, num_labels, num_experts)
    as_good = as_good or (lambda bits: bits >= observed - 1e-9)
    new = (shuffled(labels, document_T) for _ in range(rounds))
    return sum(as_good(_bits(idx_T, labels_T, num_labels, num_experts)) for labels_T in new)


def _between_documents(generator):
    return lambda labels, document_T: labels[torch.randperm(len(labels), generator=generator)][document_T]


@caught_by("never_zero")
def share_of_the_rounds(idx_T, labels_T, groups_T, num_labels, num_experts, rounds, generator):
    """With 99 rounds you found nothing as good. Does that make it impossible?"""
    args = idx_T, labels_T, groups_T, num_labels, num_experts, rounds
    return _count(*args, _between_documents(generator)) / rounds


@caught_by("never_zero")
def one_more_above_only(idx_T, labels_T, groups_T, num_labels, num_experts, rounds, generator):
    """The labels as they are count as one of the shuffles. How many shuffles are there then?"""
    args = idx_T, labels_T, groups_T, num_labels, num_experts, rounds
    return (1 + _count(*args, _between_documents(generator))) / rounds


@caught_by("never_zero")
def one_more_below_only(idx_T, labels_T, groups_T, num_labels, num_experts, rounds, generator):
    """The labels as they are count as one of the shuffles. Are they as good as themselves?"""
    args = idx_T, labels_T, groups_T, num_labels, num_experts, rounds
    return _count(*args, _between_documents(generator)) / (1 + rounds)


@caught_by("never_zero")
def the_other_tail(idx_T, labels_T, groups_T, num_labels, num_experts, rounds, generator):
    """Do you count the shuffles that have more bits, or fewer?"""
    observed = _bits(idx_T, labels_T, num_labels, num_experts)
    args = idx_T, labels_T, groups_T, num_labels, num_experts, rounds
    return _p(_count(*args, _between_documents(generator), lambda bits: bits <= observed + 1e-9), rounds)


@caught_by("never_zero")
def a_hundred_rounds_always(idx_T, labels_T, groups_T, num_labels, num_experts, rounds, generator):
    """Who decides how many rounds there are?"""
    args = idx_T, labels_T, groups_T, num_labels, num_experts, 100
    return _p(_count(*args, _between_documents(generator)), 100)


@caught_by("never_zero")
def shuffled_within_documents(idx_T, labels_T, groups_T, num_labels, num_experts, rounds, generator):
    """All tokens of a document have one label. What changes when they swap it among themselves?"""
    return 1.0


@caught_by("other_inputs", form=True)
def a_tensor(idx_T, labels_T, groups_T, num_labels, num_experts, rounds, generator):
    """The result is a Python float. What does a tensor with one value need to become one?"""
    args = idx_T, labels_T, groups_T, num_labels, num_experts, rounds
    return torch.tensor(_p(_count(*args, _between_documents(generator)), rounds))


@caught_by("ties")
def strictly_more(idx_T, labels_T, groups_T, num_labels, num_experts, rounds, generator):
    """A shuffle has exactly the observed bits. Did chance do as well as the labels?"""
    observed = _bits(idx_T, labels_T, num_labels, num_experts)
    args = idx_T, labels_T, groups_T, num_labels, num_experts, rounds
    return _p(_count(*args, _between_documents(generator), lambda bits: bits > observed + 1e-9), rounds)


@caught_by("four_documents")
def labels_drawn_with_replacement(idx_T, labels_T, groups_T, num_labels, num_experts, rounds, generator):
    """Two documents of four are code. In how many of your shuffles are they still two?"""

    def drawn(labels, document_T):
        return labels[torch.randint(len(labels), labels.shape, generator=generator)][document_T]

    return _p(_count(idx_T, labels_T, groups_T, num_labels, num_experts, rounds, drawn), rounds)


@caught_by("four_documents")
def one_shuffle_for_all_rounds(idx_T, labels_T, groups_T, num_labels, num_experts, rounds, generator):
    """How often do you shuffle, and how often do you count the same shuffle?"""
    args = idx_T, labels_T, groups_T, num_labels, num_experts
    return _p(rounds * _count(*args, 1, _between_documents(generator)), rounds)


@caught_by("documents")
def tokens_shuffled(idx_T, labels_T, groups_T, num_labels, num_experts, rounds, generator):
    """Neighbouring tokens are alike. Are ten thousand tokens of forty documents ten thousand witnesses?"""

    def shuffled(labels, document_T):
        return labels_T[torch.randperm(len(labels_T), generator=generator)]

    return _p(_count(idx_T, labels_T, groups_T, num_labels, num_experts, rounds, shuffled), rounds)


@caught_by("lengths")
def runs_of_labels_moved(idx_T, labels_T, groups_T, num_labels, num_experts, rounds, generator):
    """You put the documents' labels in another order, each as often as before. Whose tokens do they now meet?"""

    def moved(labels, document_T):
        order = torch.randperm(len(labels), generator=generator)
        return labels[order].repeat_interleave(document_T.bincount()[order])

    document_T, _ = _documents(labels_T, groups_T)
    order_T = document_T.argsort(stable=True)
    args = idx_T[order_T], labels_T[order_T], groups_T[order_T], num_labels, num_experts, rounds
    return _p(_count(*args, moved), rounds)


@caught_by("lengths")
def one_token_a_document(idx_T, labels_T, groups_T, num_labels, num_experts, rounds, generator):
    """A long document and a short one have one vote each here. What does the mutual information count?"""
    document_T, labels = _documents(labels_T, groups_T)
    idx = idx_T.new_zeros(len(labels)).scatter(0, document_T, idx_T)
    args = idx, labels, torch.arange(len(labels)), num_labels, num_experts, rounds
    return _p(_count(*args, _between_documents(generator)), rounds)


@caught_by("ids")
def documents_stand_together(idx_T, labels_T, groups_T, num_labels, num_experts, rounds, generator):
    """Is it a new document whenever the id differs from that of the token before?"""
    _, document_T = groups_T.unique_consecutive(return_inverse=True)
    args = idx_T, labels_T, document_T, num_labels, num_experts, rounds
    return _p(_count(*args, _between_documents(generator)), rounds)


@caught_by("ids")
def documents_that_are_not_there(idx_T, labels_T, groups_T, num_labels, num_experts, rounds, generator):
    """Ids go up to 41. Are there 42 documents, and which label do you give those without tokens?"""

    def shuffled(labels, document_T):
        every = labels_T.new_zeros(int(groups_T.max()) + 1).scatter(0, groups_T, labels_T)
        return every[torch.randperm(len(every), generator=generator)][groups_T]

    return _p(_count(idx_T, labels_T, groups_T, num_labels, num_experts, rounds, shuffled), rounds)


@caught_by("generator")
def generator_not_passed_on(idx_T, labels_T, groups_T, num_labels, num_experts, rounds, generator):
    """Where does randperm get its numbers from if nobody tells it?"""
    args = idx_T, labels_T, groups_T, num_labels, num_experts, rounds
    return _p(_count(*args, _between_documents(None)), rounds)


@caught_by("generator")
def a_seed_of_your_own(idx_T, labels_T, groups_T, num_labels, num_experts, rounds, generator):
    """Would another seed give another p, and who could choose one?"""
    args = idx_T, labels_T, groups_T, num_labels, num_experts, rounds
    return _p(_count(*args, _between_documents(torch.Generator().manual_seed(0))), rounds)


@caught_by("generator")
def generator_rewound(idx_T, labels_T, groups_T, num_labels, num_experts, rounds, generator):
    """You set the generator back to its seed. What does the next call with it draw?"""
    generator.manual_seed(generator.initial_seed())
    args = idx_T, labels_T, groups_T, num_labels, num_experts, rounds
    return _p(_count(*args, _between_documents(generator)), rounds)


@caught_by("other_inputs", form=True)
def labels_overwritten(idx_T, labels_T, groups_T, num_labels, num_experts, rounds, generator):
    """Whose labels are shuffled after your function has returned?"""

    def shuffled(labels, document_T):
        labels_T[:] = labels[torch.randperm(len(labels), generator=generator)][document_T]
        return labels_T

    return _p(_count(idx_T, labels_T, groups_T, num_labels, num_experts, rounds, shuffled), rounds)
