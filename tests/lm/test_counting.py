"""What is counted on fake tensors, and what the counts say about a training step."""

import contextlib

import pytest
import torch
from lm.small import CONTEXT, L, batch, lm_config, make
from torch._subclasses import FakeTensorMode
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from moe_course.lm.model.transformer import Transformer
from moe_course.lm.training.counting import Counter, as_on_cuda
from moe_course.lm.training.objective import cross_entropy
from moe_course.lm.training.step import accumulate_gradients
from moe_course.moe import MoEConfig

torch.set_num_threads(1)
ROWS = 5  # no activation has the shape of a weight then
EIGHTS = MoEConfig(d_model=16, d_ff=8, num_experts=5, top_k=2, dispatch="grouped")


def names(counted):
    return [kernel.name for kernel in counted.found]


def count_step(ffn, pieces=1, bf16=True, **options):
    """One training step on fake tensors, as `Counter` sees it."""
    autocast = torch.autocast("cpu", torch.bfloat16) if bf16 else contextlib.nullcontext()
    with FakeTensorMode():
        model = Transformer(lm_config(ffn, **options))
        tokens_BS1 = torch.zeros(ROWS, CONTEXT + 1, dtype=torch.long)
        with as_on_cuda(), Counter() as counted:
            accumulate_gradients(model, [tokens_BS1] * pieces, 0.01, 0.001, autocast)
    return counted


@contextlib.contextmanager
def watching_casts():
    """The shapes of what is cast from one floating dtype to another inside."""
    shapes = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.aten._to_copy.default and args[0].is_floating_point():
                shapes.append(tuple(args[0].shape))
            return func(*args, **(kwargs or {}))

    with Watch():
        yield shapes


class TestCounter:
    def test_by_hand(self):
        """(2, 3) · (3, 4): 48 FLOPs; 24 + 48 bytes read, 32 written. Its negative has the same 32 bytes."""
        with FakeTensorMode():
            a, b = torch.empty(2, 3), torch.empty(3, 4)
            with Counter() as counted:
                y = a @ b
                assert counted.live_bytes == 32
                z = -y
                del y
                assert counted.live_bytes == 32
                z.T.bfloat16()
                torch.empty(2, dtype=torch.int32).float()
        assert (counted.flops, counted.bytes) == (48, 24 + 48 + 32 + 64 + 32 + 16 + 16)
        assert names(counted) == ["mm", "neg", "cast", "_to_copy"], "a transpose is no kernel"
        assert (counted.kernels, counted.casts, counted.peak_bytes) == (4, 1, 64)
        assert counted.seconds(48, None, 1e9) == pytest.approx(1, rel=1e-3)
        assert counted.seconds(1e9, None, 1) == pytest.approx(counted.bytes, rel=1e-3)

    @pytest.mark.parametrize(
        "ffn", [128, MoEConfig(d_model=64, d_ff=32, num_experts=4, top_k=2, dispatch="onehot")]
    )
    def test_the_memory_is_that_of_a_real_run(self, ffn):
        """PyTorch's profiler sees every allocation: their highest sum is the peak, to within a tenth."""
        sizes = dict(d_model=64, vocab_size=512, context=64)
        tokens_BS1 = torch.zeros(8, 65, dtype=torch.long)

        def step(model):
            accumulate_gradients(model, [tokens_BS1], 0.01, 0.001)

        model = make(ffn, **sizes)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
            step(model)
        events = [e for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"]
        used = highest = 0
        for event in sorted(events, key=lambda event: event.start_ns()):
            used += event.nbytes()
            highest = max(highest, used)
        with FakeTensorMode(allow_non_fake_inputs=True):
            model = Transformer(lm_config(ffn, **sizes))
            with Counter() as counted:
                step(model)
        assert counted.peak_bytes == pytest.approx(highest, rel=0.1)


class TestStep:
    @pytest.mark.parametrize("layers", [1, L])
    def test_rotary_angles_are_computed_once_a_forward(self, layers):
        found = names(count_step(EIGHTS, num_layers=layers))
        assert found.count("cos") == found.count("sin") == 1

    def test_each_weight_is_cast_once_a_step(self):
        """A further piece casts activations and gradients, and no weight: gains are not cast, all others are."""
        with FakeTensorMode():
            weights = {
                tuple(w.shape) for n, w in Transformer(lm_config(EIGHTS)).named_parameters() if w.ndim > 1
            }

        def casts(pieces):
            with watching_casts() as shapes:
                count_step(EIGHTS, pieces)
            return [shape for shape in shapes if shape in weights]

        few, many = casts(1), casts(3)
        backward = L * 5 + 1  # the gradient of each matrix but the router's is cast back, for every piece
        assert len(many) - len(few) == 2 * backward
        assert len(few) == 2 * backward

    def test_experts_get_rows_that_were_cast_before_they_were_gathered(self):
        """T rows are cast, and nothing with T·K rows, whether to bfloat16 or back."""
        with FakeTensorMode(), torch.autocast("cpu", torch.bfloat16), watching_casts() as shapes:
            Transformer(lm_config(EIGHTS))(torch.zeros(ROWS, CONTEXT, dtype=torch.long))
        assert (ROWS * CONTEXT, 16) in shapes
        assert (ROWS * CONTEXT * EIGHTS.top_k, 16) not in shapes

    def test_the_forward_pass_has_no_graph_break(self):
        """As on a GPU: the meta device takes the same ways through the code."""
        with torch.device("meta"):
            model = Transformer(lm_config(EIGHTS)).bfloat16()
            tokens_BS = torch.zeros(4, CONTEXT, dtype=torch.long)
        logits_BSV, aux = torch.compile(model, backend="eager", fullgraph=True)(tokens_BS)
        assert logits_BSV.is_meta
        assert len(aux.stats) == L


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("pieces", [1, 2])
def test_forward_and_backward_do_not_make_the_host_wait(pieces):
    model = Transformer(lm_config(MoEConfig(d_model=16, d_ff=8, num_experts=5, top_k=2))).cuda()
    tokens_BS1 = torch.zeros(ROWS, CONTEXT + 1, dtype=torch.long, device="cuda")

    def step():
        accumulate_gradients(
            model, [tokens_BS1] * pieces, 0.01, 0.001, torch.autocast("cuda", torch.bfloat16)
        )

    step()  # the first call of a kernel may load it
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


class TestCrossEntropy:
    def test_narrow_logits_give_the_loss_and_the_gradient_of_wide_ones(self, monkeypatch):
        monkeypatch.setattr("moe_course.lm.training.objective._AT_ONCE", 3)
        narrow = torch.randn(2, 5, 11, generator=torch.Generator().manual_seed(0)).bfloat16().requires_grad_()
        wide = narrow.detach().float().requires_grad_()
        targets_BS = batch(0)[:2, :5] % 11
        losses = [cross_entropy(logits, targets_BS) for logits in (narrow, wide)]
        assert losses[0].dtype == torch.float32
        assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-6)
        for loss in losses:
            loss.backward()
        torch.testing.assert_close(narrow.grad, wide.grad.bfloat16())

    def test_narrow_logits_are_never_all_copied_to_float32(self):
        """Beside bfloat16 logits: their gradient, twice while its parts are joined, and one part in float32."""
        with FakeTensorMode():
            logits_BSV = torch.empty(64, 1024, 512, dtype=torch.bfloat16, requires_grad=True)
            targets_BS = torch.zeros(64, 1024, dtype=torch.long)
            with Counter() as counted:
                cross_entropy(logits_BSV, targets_BS).backward()
        assert counted.peak_bytes < 2.3 * 2 * logits_BSV.numel() < 4 * 2 * logits_BSV.numel()
