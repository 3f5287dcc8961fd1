"""Experts on several real processes: equal to one process in output and every gradient, whatever is sent to whom."""

import multiprocessing
import os
import signal
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from torch import nn

from moe_course.grading.worker.ranks import RanksFailed, on_ranks
from moe_course.moe import MoEConfig, MoELayer
from moe_course.moe.loop import moe_loop
from moe_course.systems.expert_parallel import (
    EXPERT_WEIGHTS,
    ExpertParallelMoE,
    exchange_rows,
    expert_parallel_forward,
    expert_rank,
    local_state,
    send_counts,
    spread_experts,
    whole_state,
)

E, D, F, K = 12, 5, 7, 3
CONFIGS = {
    "dropless": {},
    "capacity": {"capacity_factor": 0.8},
    "shared and biased": {"num_shared": 1, "d_ff_shared": 3, "router": "sigmoid", "bias_rate": 0.01},
}


def whole_layer(**options):
    torch.manual_seed(5)
    return MoELayer(MoEConfig(d_model=D, d_ff=F, num_experts=E, top_k=K, **options)).double()


def tokens(rank, rows=None):
    """What a rank computes: as many tokens as it is given, or rank + 2 of them."""
    generator = torch.Generator().manual_seed(40 + rank)
    return torch.randn(1, rank + 2 if rows is None else rows, D, generator=generator, dtype=torch.float64)


def step(layer, x):
    """Output, loss and gradients by name; the loss weighs every number differently."""
    x = x.clone().requires_grad_()
    y, stats = layer(x)
    loss = (y * torch.arange(y.numel()).view_as(y).cos()).sum() + 0.3 * stats.lb_loss + 0.1 * stats.z_loss
    loss.backward()
    grads = {name: p.grad for name, p in layer.named_parameters()}
    return {"y": y, "loss": loss, "x": x.grad, **grads}


@pytest.fixture(scope="module", params=[2, 3, 4])
def ran(request):
    """For each config, what the ranks computed, and what one process computes rank by rank; the number of ranks."""
    size = request.param

    def work(rank):
        steps = {}
        for name, options in CONFIGS.items():
            layer = ExpertParallelMoE.from_layer(whole_layer(**options))
            empty = 0 if name == "dropless" and rank == 1 else None  # a rank without tokens still computes
            steps[name] = step(layer, tokens(rank, empty))
        return steps

    together = on_ranks(size, work)
    alone = []
    for rank in range(size):
        layers = {name: whole_layer(**options) for name, options in CONFIGS.items()}
        empty = 0 if rank == 1 else None
        inputs = {name: tokens(rank, empty if name == "dropless" else None) for name in CONFIGS}
        alone.append({name: step(layer, inputs[name]) for name, layer in layers.items()})
    return together, alone, size


class TestParity:
    @pytest.mark.parametrize("config", CONFIGS)
    def test_outputs_and_gradients_of_what_every_rank_has(self, ran, config):
        together, alone, _ = ran
        for mine, right in zip(together, alone, strict=True):
            for name in right[config].keys() - {*EXPERT_WEIGHTS}:
                torch.testing.assert_close(mine[config][name], right[config][name], msg=name)

    @pytest.mark.parametrize("config", CONFIGS)
    @pytest.mark.parametrize("weight", EXPERT_WEIGHTS)
    def test_an_expert_gets_the_sum_of_all_ranks_gradients(self, ran, config, weight):
        together, alone, size = ran
        mine = torch.cat([one[config][weight] for one in together])
        right = sum(one[config][weight] for one in alone)
        assert mine.shape[0] == E
        assert all(len(one[config][weight]) == E // size for one in together)
        torch.testing.assert_close(mine, right)


def parts(seed, count):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, D, generator=generator, dtype=torch.float64)
    return x, torch.rand(count, K, generator=generator, dtype=torch.float64)


EXPERTS = [torch.randn(*shape, dtype=torch.float64) for shape in ((E, D, F), (E, D, F), (E, F, D))]


def test_everything_to_one_rank_and_zeros_for_the_idle_ones():
    idx = torch.arange(K).expand(4, K)  # the first experts only: ranks 1 to 3 compute nothing

    def work(rank):
        x, weights = parts(rank, 4)
        local = [w[3 * rank : 3 * rank + 3].clone().requires_grad_() for w in EXPERTS]
        y = expert_parallel_forward(x, weights, idx, *local, E)
        y.sum().backward()
        return y, [w.grad for w in local]

    for rank, (y, grads) in enumerate(on_ranks(4, work)):
        torch.testing.assert_close(y, moe_loop(*parts(rank, 4), idx, *EXPERTS))
        for grad in grads:
            assert grad is not None
            assert bool(grad.any()) == (rank == 0)


def test_a_subgroup_in_another_order_of_world_ranks():
    idx = torch.tensor([[0, 7, 11], [6, 2, 3]])

    def work(rank):
        group = dist.new_group([1, 3])
        if rank not in (1, 3):
            return None
        at = dist.get_rank(group)
        return expert_parallel_forward(
            *parts(rank, 2), idx, *(w[6 * at : 6 * at + 6] for w in EXPERTS), E, group
        )

    for rank, y in enumerate(on_ranks(4, work)):
        if y is not None:
            torch.testing.assert_close(y, moe_loop(*parts(rank, 2), idx, *EXPERTS))


class TestExchange:
    def test_rows_arrive_by_sender_and_gradients_go_back(self):
        sends = [[1, 0, 2], [0, 0, 3], [4, 1, 0]]  # by sender and receiver

        def work(rank):
            rows = torch.arange(sum(sends[rank]) * 2.0).view(-1, 2) + 100 * rank
            rows.requires_grad_()
            got = exchange_rows(rows, sends[rank], [send[rank] for send in sends])
            (got * torch.arange(1.0, len(got) + 1)[:, None]).sum().backward()
            return rows, got, rows.grad

        ran = on_ranks(3, work)
        for me in range(3):
            want = [ran[r][0].split(sends[r])[me] for r in range(3)]
            torch.testing.assert_close(ran[me][1], torch.cat(want))
        places = [
            torch.arange(1.0, len(got) + 1).split([s[r] for s in sends]) for r, (_, got, _) in enumerate(ran)
        ]
        for me in range(3):
            want = torch.cat([places[r][me] for r in range(3)])
            torch.testing.assert_close(ran[me][2], want[:, None].expand(-1, 2))

    def test_bad_counts(self):
        def work(rank):
            for send, recv in (([1], [1]), ([1, 1], [0, 1]), ([3, -1], [1, 1])):
                with pytest.raises(ValueError, match=r"send_R|ranks in a group"):
                    exchange_rows(torch.zeros(3, 2), send, recv)
            return True

        assert on_ranks(2, work) == [True, True]


class TestState:
    def test_shares_make_the_whole_again_on_any_number_of_ranks(self):
        model = nn.Sequential(nn.Linear(D, D), whole_layer())
        whole = model.state_dict()

        def work(rank):
            own = nn.Sequential(nn.Linear(D, D), whole_layer())
            own.load_state_dict(whole)
            spread_experts(own)
            assert type(own[1]) is ExpertParallelMoE
            share = own.state_dict()
            assert share["1.w_up"].shape == (E // 3, D, F)
            for name, value in local_state(whole, rank, 3).items():
                assert torch.equal(share[name], value), name
            return whole_state(share)

        for got in on_ranks(3, work):
            assert got.keys() == whole.keys()
            assert all(torch.equal(got[name], value) for name, value in whole.items())

    def test_experts_that_do_not_divide(self):
        with pytest.raises(ValueError, match="12 experts do not divide into 5 ranks"):
            local_state(whole_layer().state_dict(), 0, 5)


def test_expert_rank():
    assert [expert_rank(e, 6, 3) for e in range(6)] == [0, 0, 1, 1, 2, 2]
    for bad in ((6, 6, 3), (-1, 6, 3), (0, 6, 4), (0, 6, 0)):
        with pytest.raises(ValueError, match="expert"):
            expert_rank(*bad)


def test_send_counts():
    idx = torch.tensor([[0, 1], [5, 2], [4, 5]])
    assert send_counts(idx, 6, 3).tolist() == [2, 1, 3]
    assert send_counts(idx, 12, 3).tolist() == [3, 3, 0]


def _dies(rank, size, folder, dead, told):
    """A rank that ends, or stops without ending, between two steps; what the others are told."""
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo" if os.path.exists("/sys/class/net/lo") else "lo0"
    store = dist.FileStore(str(folder / "store"), size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=timedelta(seconds=2))
    layer = ExpertParallelMoE.from_layer(whole_layer())
    step(layer, tokens(rank))
    if rank == size - 1:
        os.kill(os.getpid(), dead)
    try:
        step(layer, tokens(rank))
    except RuntimeError as error:
        told.put((rank, str(error)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks processes")
@pytest.mark.parametrize("dead", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_rank_that_dies_ends_all_others_with_a_clear_error(dead, tmp_path):
    fork = multiprocessing.get_context("fork")
    told = fork.Queue()
    processes = [fork.Process(target=_dies, args=(rank, 3, tmp_path, dead, told)) for rank in range(3)]
    for process in processes:
        process.start()
    try:
        heard = dict(told.get(timeout=60) for _ in range(2))
    finally:
        for process in processes:
            process.kill()
            process.join()
    assert sorted(heard) == [0, 1]
    for rank, message in heard.items():
        assert message.startswith(f"rank {rank} lost a rank of its group in an exchange")


class TestOnRanks:
    """The machinery itself: failures end all ranks and say what happened where."""

    def test_a_deadlock_says_who_waits_where(self):
        def work(rank):
            if rank != 1:
                dist.barrier()

        with pytest.raises(RanksFailed) as failed:
            on_ranks(3, work)
        assert failed.value.error.type_name == "Deadlock"
        message = failed.value.error.message
        assert "rank 0 waits in barrier, called by work at `dist.barrier()`" in message
        assert "rank 1 has returned" in message

    def test_the_first_exception_ends_all(self):
        def work(rank):
            if rank == 1:
                raise ValueError("too many rows")
            dist.barrier()

        with pytest.raises(RanksFailed, match="ValueError: on rank 1: too many rows"):
            on_ranks(3, work)

    def test_a_dead_process(self):
        def work(rank):
            if rank == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            dist.barrier()

        with pytest.raises(RanksFailed, match="rank 0 ended with signal 9"):
            on_ranks(2, work)

    def test_a_loop_without_end(self):
        def work(rank):
            while rank:
                pass

        with pytest.raises(RanksFailed, match="rank 1 still runs in work"):
            on_ranks(2, work, seconds=1.5)

    def test_prints_are_shown_with_their_rank(self, capsys):
        assert on_ranks(2, lambda rank: print("here") or rank) == [0, 1]
        assert capsys.readouterr().out == "[rank 0] here\n[rank 1] here\n"

    def test_a_size_below_one(self):
        with pytest.raises(ValueError, match="not 0"):
            on_ranks(0, int)
