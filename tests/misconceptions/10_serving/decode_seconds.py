import torch

from moe_course.grading.judge.catalogue import caught_by


@caught_by("longer")
def one_after_the_other(bytes_per_step, active_params, batch, bandwidth, peak_flops):
    """Does a GPU wait with its arithmetic until the last byte is read?"""
    return bytes_per_step / bandwidth + 2 * active_params * batch / peak_flops


@caught_by("memory")
def the_shorter_of_the_two(bytes_per_step, active_params, batch, bandwidth, peak_flops):
    """A step that needs bytes and arithmetic is done when both are. Which of them comes last?"""
    return min(bytes_per_step / bandwidth, 2 * active_params * batch / peak_flops)


@caught_by("arithmetic")
def multiply_add_as_one(bytes_per_step, active_params, batch, bandwidth, peak_flops):
    """How many FLOPs is one multiply-add?"""
    return max(bytes_per_step / bandwidth, active_params * batch / peak_flops)


@caught_by("arithmetic")
def one_token(bytes_per_step, active_params, batch, bandwidth, peak_flops):
    """Weights are read once for the batch. Are they also multiplied only once?"""
    return max(bytes_per_step / bandwidth, 2 * active_params / peak_flops)


@caught_by("arithmetic")
def backward_too(bytes_per_step, active_params, batch, bandwidth, peak_flops):
    """Six FLOPs for each parameter and token are those of training. What does serving leave out?"""
    return max(bytes_per_step / bandwidth, 6 * active_params * batch / peak_flops)


@caught_by("memory")
def bytes_for_each_sequence(bytes_per_step, active_params, batch, bandwidth, peak_flops):
    """Is bytes_per_step what one sequence reads, or the whole step?"""
    return max(bytes_per_step * batch / bandwidth, 2 * active_params * batch / peak_flops)


@caught_by("memory")
def time_for_each_token(bytes_per_step, active_params, batch, bandwidth, peak_flops):
    """You divide by the batch. Is the question how long a step takes, or how long for each of its tokens?"""
    return max(bytes_per_step / bandwidth, 2 * active_params * batch / peak_flops) / batch


@caught_by("memory")
def tokens_per_second(bytes_per_step, active_params, batch, bandwidth, peak_flops):
    """You return a speed. Which unit has the answer?"""
    return batch / max(bytes_per_step / bandwidth, 2 * active_params * batch / peak_flops)


@caught_by("memory")
def only_arithmetic(bytes_per_step, active_params, batch, bandwidth, peak_flops):
    """How long does it take to read the weights?"""
    return 2 * active_params * batch / peak_flops


@caught_by("arithmetic")
def only_memory(bytes_per_step, active_params, batch, bandwidth, peak_flops):
    """With a very large batch, is the time still that of reading the weights?"""
    return bytes_per_step / bandwidth


@caught_by("float", form=True)
def tensor_returned(bytes_per_step, active_params, batch, bandwidth, peak_flops):
    """You return a tensor. Which type does the docstring promise?"""
    reading = torch.tensor(bytes_per_step / bandwidth, dtype=torch.float64)
    computing = torch.tensor(2 * active_params * batch / peak_flops, dtype=torch.float64)
    return torch.maximum(reading, computing)
