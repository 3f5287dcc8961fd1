import statistics


def mean_load(load_R, seconds_per_token, bytes_out, bandwidth, latency):
    compute = statistics.fmean(load_R.tolist()) * seconds_per_token
    return compute + latency + bytes_out / bandwidth + latency + bytes_out / bandwidth


def ranks_one_after_another(load_R, seconds_per_token, bytes_out, bandwidth, latency):
    seconds = sum(load * seconds_per_token for load in load_R.tolist())
    return seconds + 2 * latency + 2 * bytes_out / bandwidth


def fastest_rank(load_R, seconds_per_token, bytes_out, bandwidth, latency):
    return min(load_R.tolist()) * seconds_per_token + 2 * latency + 2 * bytes_out / bandwidth


def one_exchange(load_R, seconds_per_token, bytes_out, bandwidth, latency):
    return latency + bytes_out / bandwidth + max(load_R.tolist()) * seconds_per_token


def latency_once(load_R, seconds_per_token, bytes_out, bandwidth, latency):
    transfer = bytes_out / bandwidth
    return latency + transfer + max(load_R.tolist()) * seconds_per_token + transfer


def four_exchanges(load_R, seconds_per_token, bytes_out, bandwidth, latency):
    return max(load_R.tolist()) * seconds_per_token + sum(latency + bytes_out / bandwidth for _ in range(4))


def times_the_bandwidth(load_R, seconds_per_token, bytes_out, bandwidth, latency):
    exchange = latency + bandwidth * bytes_out
    return max(load_R.tolist()) * seconds_per_token + exchange + exchange


def hidden_behind_the_compute(load_R, seconds_per_token, bytes_out, bandwidth, latency):
    compute, network = max(load_R.tolist()) * seconds_per_token, 2 * (latency + bytes_out / bandwidth)
    return compute if compute > network else network


def a_tensor(load_R, seconds_per_token, bytes_out, bandwidth, latency):
    return load_R.amax() * seconds_per_token + 2 * latency + 2 * (bytes_out / bandwidth)
