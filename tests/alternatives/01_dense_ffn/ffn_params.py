import math


def matrix_by_matrix(d_model, d_ff):
    shapes = {"gate": (d_model, d_ff), "up": (d_model, d_ff), "down": (d_ff, d_model)}
    return sum(math.prod(shape) for shape in shapes.values())


def gate_and_up_fused(d_model, d_ff):
    params = d_model * (2 * d_ff)
    params += d_ff * d_model
    return params
