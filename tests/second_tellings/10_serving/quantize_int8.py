import torch


def _pack(w, scale):
    """scale broadcasts against w."""
    return torch.clamp(torch.round(w.double() / scale.double()), -127, 127).to(torch.int8)


def _guard(scale):
    return scale.masked_fill(scale == 0, 1.0)


class _Both:
    @staticmethod
    def quantize_int8(w_EDF):
        scale = _guard(w_EDF.abs().max(1).values / 127)
        return _pack(w_EDF, scale.unsqueeze(1)), scale

    @staticmethod
    def dequantize_int8(q_EDF, scale_EF):
        return scale_EF.unsqueeze(1) * q_EDF.to(scale_EF.dtype)


class one_scale_for_all(_Both):
    @staticmethod
    def quantize_int8(w_EDF):
        scale = _guard(w_EDF.abs().max() / 127)
        return _pack(w_EDF, scale), scale.repeat(w_EDF.shape[0], w_EDF.shape[2])


class one_scale_for_each_expert(_Both):
    @staticmethod
    def quantize_int8(w_EDF):
        scale = _guard(w_EDF.abs().flatten(1).max(1).values / 127)
        return _pack(w_EDF, scale[:, None, None]), scale[:, None].repeat(1, w_EDF.shape[2])


class one_scale_for_each_row(_Both):
    @staticmethod
    def quantize_int8(w_EDF):
        scale = _guard(w_EDF.abs().max(-1).values / 127)
        return _pack(w_EDF, scale.unsqueeze(-1)), scale


class divided_by_128(_Both):
    @staticmethod
    def quantize_int8(w_EDF):
        scale = _guard(w_EDF.abs().max(1).values / 128)
        return _pack(w_EDF, scale.unsqueeze(1)), scale


class maximum_without_abs(_Both):
    @staticmethod
    def quantize_int8(w_EDF):
        scale = _guard(w_EDF.max(1).values / 127)
        return _pack(w_EDF, scale.unsqueeze(1)), scale


class cut_off_in_place_of_rounded(_Both):
    @staticmethod
    def quantize_int8(w_EDF):
        scale = _guard(w_EDF.abs().max(1).values / 127)
        return torch.trunc(w_EDF / scale.unsqueeze(1)).clamp(-127, 127).to(torch.int8), scale


class scale_forgotten(_Both):
    @staticmethod
    def dequantize_int8(q_EDF, scale_EF):
        return q_EDF.clone().to(dtype=scale_EF.dtype)


class divided_by_the_scale(_Both):
    @staticmethod
    def dequantize_int8(q_EDF, scale_EF):
        return torch.div(q_EDF.to(scale_EF.dtype), scale_EF.unsqueeze(-2))


class stored_as_float(_Both):
    @staticmethod
    def quantize_int8(w_EDF):
        scale = _guard(w_EDF.abs().max(1).values / 127)
        return _pack(w_EDF, scale.unsqueeze(1)).to(w_EDF), scale


class always_float32(_Both):
    @staticmethod
    def dequantize_int8(q_EDF, scale_EF):
        return scale_EF.float().unsqueeze(1) * q_EDF.to(torch.float32)
