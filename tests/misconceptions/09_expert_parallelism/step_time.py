from moe_course.grading.judge.catalogue import caught_by


def _travel(bytes_out, bandwidth, latency):
    return 2 * (latency + bytes_out / bandwidth)


@caught_by("slowest")
def mean_load(load_R, seconds_per_token, bytes_out, bandwidth, latency):
    """The average rank is ready. May the layer go on?"""
    return float(load_R.double().mean()) * seconds_per_token + _travel(bytes_out, bandwidth, latency)


@caught_by("slowest")
def ranks_one_after_another(load_R, seconds_per_token, bytes_out, bandwidth, latency):
    """Do the ranks compute one after another, or at the same time?"""
    return float(load_R.sum()) * seconds_per_token + _travel(bytes_out, bandwidth, latency)


@caught_by("slowest")
def fastest_rank(load_R, seconds_per_token, bytes_out, bandwidth, latency):
    """Who waits for whom: the slowest for the fastest?"""
    return float(load_R.min()) * seconds_per_token + _travel(bytes_out, bandwidth, latency)


@caught_by("slowest")
def first_rank(load_R, seconds_per_token, bytes_out, bandwidth, latency):
    """That is the time of rank 0. What do the others do meanwhile?"""
    return float(load_R[0]) * seconds_per_token + _travel(bytes_out, bandwidth, latency)


@caught_by("exchanges")
def one_exchange(load_R, seconds_per_token, bytes_out, bandwidth, latency):
    """The tokens have travelled to the experts. And the results?"""
    return float(load_R.max()) * seconds_per_token + latency + bytes_out / bandwidth


@caught_by("exchanges")
def latency_once(load_R, seconds_per_token, bytes_out, bandwidth, latency):
    """Each exchange begins anew. How often is the latency paid?"""
    return float(load_R.max()) * seconds_per_token + latency + 2 * bytes_out / bandwidth


@caught_by("exchanges")
def four_exchanges(load_R, seconds_per_token, bytes_out, bandwidth, latency):
    """Two of these belong to the backward pass. Is it asked for?"""
    return float(load_R.max()) * seconds_per_token + 2 * _travel(bytes_out, bandwidth, latency)


@caught_by("exchanges")
def times_the_bandwidth(load_R, seconds_per_token, bytes_out, bandwidth, latency):
    """A faster network: does your time rise or fall?"""
    return float(load_R.max()) * seconds_per_token + 2 * (latency + bytes_out * bandwidth)


@caught_by("exchanges")
def bandwidth_in_bits(load_R, seconds_per_token, bytes_out, bandwidth, latency):
    """Bytes at bytes per second: what is the 8 for?"""
    return float(load_R.max()) * seconds_per_token + _travel(8 * bytes_out, bandwidth, latency)


@caught_by("exchanges")
def hidden_behind_the_compute(load_R, seconds_per_token, bytes_out, bandwidth, latency):
    """You let the rows travel while they are computed. Can an expert begin before they arrive?"""
    return max(float(load_R.max()) * seconds_per_token, _travel(bytes_out, bandwidth, latency))


@caught_by("float", form=True)
def a_tensor(load_R, seconds_per_token, bytes_out, bandwidth, latency):
    """`load_R.max()` is a tensor. Is a number of Python asked for?"""
    return load_R.max() * seconds_per_token + _travel(bytes_out, bandwidth, latency)
