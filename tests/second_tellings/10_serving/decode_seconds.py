def one_after_the_other(bytes_per_step, active_params, batch, bandwidth, peak_flops):
    reading = bytes_per_step / bandwidth
    computing = batch * 2 * active_params / peak_flops
    return computing + reading


def the_shorter_of_the_two(bytes_per_step, active_params, batch, bandwidth, peak_flops):
    reading, computing = bytes_per_step / bandwidth, batch * 2 * active_params / peak_flops
    return reading if reading < computing else computing


def multiply_add_as_one(bytes_per_step, active_params, batch, bandwidth, peak_flops):
    flops = batch * active_params
    return max(flops / peak_flops, bytes_per_step / bandwidth)


def one_token(bytes_per_step, active_params, batch, bandwidth, peak_flops):
    flops = active_params + active_params
    return max(flops / peak_flops, bytes_per_step / bandwidth)


def bytes_for_each_sequence(bytes_per_step, active_params, batch, bandwidth, peak_flops):
    one = max(bytes_per_step / bandwidth, 2 * active_params / peak_flops)
    return batch * one


def tokens_per_second(bytes_per_step, active_params, batch, bandwidth, peak_flops):
    step = max(bytes_per_step / bandwidth, batch * 2 * active_params / peak_flops)
    return batch * 1.0 / step


def time_for_each_token(bytes_per_step, active_params, batch, bandwidth, peak_flops):
    step = max(bytes_per_step / bandwidth, batch * 2 * active_params / peak_flops)
    return step / batch


def only_memory(bytes_per_step, active_params, batch, bandwidth, peak_flops):
    return float(bytes_per_step) / bandwidth


def backward_too(bytes_per_step, active_params, batch, bandwidth, peak_flops):
    forward = 2 * active_params * batch
    return max(bytes_per_step / bandwidth, 3 * forward / peak_flops)
