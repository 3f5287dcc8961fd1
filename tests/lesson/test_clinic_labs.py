"""What notebook 11 says one sees with the faults of cases 1 and 2 in one model."""

import pytest
import torch

from moe_course.lesson import clinic, collapse
from moe_course.moe.clinic import gate, route_with_loss


@pytest.mark.slow
def test_the_fault_of_case_1_hides_that_of_case_2():
    def trained(gate, route):
        arm = collapse.Arm(
            gate=lambda logits_TE: gate(logits_TE, 1),
            extra_loss=lambda logits_TE, _: 0.03 * route(logits_TE, torch.eye(8), 1)[2],
        )
        return collapse.train(arm, (0, 1), collapse.CollapseConfig(steps=400))

    sick_gate, sick_route = clinic.admitted("gate"), clinic.admitted("route_with_loss")
    both, loss_mended = trained(sick_gate, sick_route), trained(sick_gate, route_with_loss)
    gate_mended = trained(gate, sick_route)
    assert not both.dead.any()
    assert not loss_mended.dead.any()
    assert gate_mended.dead.all()
    assert (gate_mended.final_loss < both.final_loss).all()
