import torch

from moe_course.grading.judge.catalogue import caught_by


def _copies(w, num_experts):
    return w.repeat(num_experts, 1, 1)


@caught_by("copies")
def divided_by_the_experts(w_gate_DF, w_up_DF, w_down_FD, num_experts):
    """The gates of a token already sum to 1. Why divide once more?"""
    w_down_EFD = _copies(w_down_FD, num_experts) / num_experts
    return _copies(w_gate_DF, num_experts), _copies(w_up_DF, num_experts), w_down_EFD


@caught_by("copies")
def multiplied_by_the_experts(w_gate_DF, w_up_DF, w_down_FD, num_experts):
    """Does the sum over a token's experts shrink, if their gates sum to 1?"""
    w_down_EFD = _copies(w_down_FD, num_experts) * num_experts
    return _copies(w_gate_DF, num_experts), _copies(w_up_DF, num_experts), w_down_EFD


@caught_by("copies")
def noise_to_tell_them_apart(w_gate_DF, w_up_DF, w_down_FD, num_experts):
    """Noise helps the copies to part. Is the new layer still the dense one at step 0?"""
    rng = torch.Generator().manual_seed(0)
    noise = torch.randn(num_experts, *w_gate_DF.shape, generator=rng).to(w_gate_DF.dtype)
    w_gate_EDF = _copies(w_gate_DF, num_experts) + 0.02 * noise
    return w_gate_EDF, _copies(w_up_DF, num_experts), _copies(w_down_FD, num_experts)


@caught_by("copies")
def only_the_first_is_a_copy(w_gate_DF, w_up_DF, w_down_FD, num_experts):
    """Expert 0 is the dense layer. What do the tokens get that are sent to the others?"""

    def started_anew(w):
        rest = torch.randn(num_experts - 1, *w.shape, generator=torch.Generator().manual_seed(0))
        return torch.cat([w[None], rest.to(w.dtype)])

    return tuple(started_anew(w) for w in (w_gate_DF, w_up_DF, w_down_FD))


@caught_by("copies")
def only_the_first_is_a_copy__the_rest_empty(w_gate_DF, w_up_DF, w_down_FD, num_experts):
    """Expert 0 is the dense layer. What do the tokens get that are sent to the others?"""

    def alone(w):
        return torch.cat([w[None], w.new_zeros(num_experts - 1, *w.shape)])

    return tuple(alone(w) for w in (w_gate_DF, w_up_DF, w_down_FD))


@caught_by("copies")
def one_expert_missing(w_gate_DF, w_up_DF, w_down_FD, num_experts):
    """How many experts did the caller ask for?"""
    copies = max(1, num_experts - 1)
    return tuple(_copies(w, copies) for w in (w_gate_DF, w_up_DF, w_down_FD))


@caught_by("copies")
def hidden_units_shared_out(w_gate_DF, w_up_DF, w_down_FD, num_experts):
    """Cutting a layer into narrow experts is exercise 6.2. How wide is an upcycled expert?"""
    d_ff = w_gate_DF.shape[1] // num_experts
    gate, up = (torch.stack(w.split(d_ff, dim=1)[:num_experts]) for w in (w_gate_DF, w_up_DF))
    return gate, up, torch.stack(w_down_FD.split(d_ff, dim=0)[:num_experts])


@caught_by("copies")
def experts_as_the_last_axis(w_gate_DF, w_up_DF, w_down_FD, num_experts):
    """Which axis counts the experts in w_gate_EDF?"""
    return tuple(torch.stack([w] * num_experts, dim=-1) for w in (w_gate_DF, w_up_DF, w_down_FD))


@caught_by("copies")
def copies_side_by_side(w_gate_DF, w_up_DF, w_down_FD, num_experts):
    """cat joins matrices to one larger matrix. Where is the axis of the experts?"""
    return tuple(torch.cat([w] * num_experts) for w in (w_gate_DF, w_up_DF, w_down_FD))


@caught_by("copies")
def down_not_copied(w_gate_DF, w_up_DF, w_down_FD, num_experts):
    """An expert has three matrices. Can it return nothing at first and still stand in for the dense layer?"""
    w_down_EFD = torch.zeros(num_experts, *w_down_FD.shape, dtype=w_down_FD.dtype)
    return _copies(w_gate_DF, num_experts), _copies(w_up_DF, num_experts), w_down_EFD


@caught_by("copies")
def gate_for_up(w_gate_DF, w_up_DF, w_down_FD, num_experts):
    """Which matrix did you copy twice?"""
    return _copies(w_gate_DF, num_experts), _copies(w_gate_DF, num_experts), _copies(w_down_FD, num_experts)


@caught_by("own_storage")
def expanded(w_gate_DF, w_up_DF, w_down_FD, num_experts):
    """expand makes a tensor of E experts without a single new number. What happens when one of them learns?"""
    return tuple(w.expand(num_experts, -1, -1) for w in (w_gate_DF, w_up_DF, w_down_FD))


@caught_by("own_storage")
def cloned_before_expanding(w_gate_DF, w_up_DF, w_down_FD, num_experts):
    """You copy once and expand the copy. How many experts have weights of their own?"""
    return tuple(w.clone().expand(num_experts, -1, -1) for w in (w_gate_DF, w_up_DF, w_down_FD))


@caught_by("own_storage")
def a_list_of_the_same_tensor(w_gate_DF, w_up_DF, w_down_FD, num_experts):
    """`[w] * E` holds one tensor E times. Which of them changes when you write into the first?"""
    return tuple([w.clone()] * num_experts for w in (w_gate_DF, w_up_DF, w_down_FD))


@caught_by("dense_kept")
def contiguous_copies_only_where_it_must(w_gate_DF, w_up_DF, w_down_FD, num_experts):
    """contiguous() copies only what is not contiguous yet. What about a single expert?"""
    dense = (w_gate_DF, w_up_DF, w_down_FD)
    return tuple(w[None].expand(num_experts, -1, -1).contiguous() for w in dense)


@caught_by("dense_kept")
def one_expert_is_the_dense_layer(w_gate_DF, w_up_DF, w_down_FD, num_experts):
    """With one expert you hand back the dense layer itself. Who notices when it is trained?"""
    dense = (w_gate_DF, w_up_DF, w_down_FD)
    if num_experts == 1:
        return (*tuple(w.unsqueeze(0) for w in dense[:2]), _copies(w_down_FD, 1))
    return tuple(_copies(w, num_experts) for w in dense)


@caught_by("other_inputs", form=True)
def always_float32(w_gate_DF, w_up_DF, w_down_FD, num_experts):
    """In which dtype was the dense layer?"""
    return tuple(_copies(w.float(), num_experts) for w in (w_gate_DF, w_up_DF, w_down_FD))


@caught_by("other_inputs", form=True)
def default_dtype(w_gate_DF, w_up_DF, w_down_FD, num_experts):
    """Which dtype has torch.empty when you name none, and who rounds a float64 weight?"""

    def filled(w):
        experts = torch.empty(num_experts, *w.shape)
        for e in range(num_experts):
            experts[e] = w
        return experts if w.dtype != torch.bfloat16 else experts.bfloat16()

    return tuple(filled(w) for w in (w_gate_DF, w_up_DF, w_down_FD))


@caught_by("other_inputs", form=True)
def dense_layer_normalised_in_place(w_gate_DF, w_up_DF, w_down_FD, num_experts):
    """You give the caller's matrices back changed. Were they yours to edit?"""
    copies = tuple(_copies(w, num_experts) for w in (w_gate_DF, w_up_DF, w_down_FD))
    w_down_FD.div_(num_experts)
    return copies
