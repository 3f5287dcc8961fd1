def with_an_if(bytes_per_step, active_params, batch, bandwidth, peak_flops):
    reading = bytes_per_step / bandwidth
    computing = batch * active_params / (peak_flops / 2)
    if computing > reading:
        return computing
    return reading


def in_a_list(bytes_per_step, active_params, batch, bandwidth, peak_flops):
    flops = 2.0 * batch * active_params
    return sorted([flops / peak_flops, bytes_per_step / bandwidth])[-1]
