import torch

from moe_course.grading.judge.catalogue import caught_by


def _scale(w_EDF, axes=1, most=127):
    scale = w_EDF.abs().amax(dim=axes, keepdim=True) / most
    return torch.where(scale == 0, torch.ones_like(scale), scale)


def _stored(w_EDF, scale_E1F):
    q_EDF = (w_EDF.double() / scale_E1F.double()).round().clamp(-127, 127).to(torch.int8)
    return q_EDF, scale_E1F.expand(len(w_EDF), 1, w_EDF.shape[2])[:, 0].contiguous()


class _Right:
    @staticmethod
    def quantize_int8(w_EDF):
        return _stored(w_EDF, _scale(w_EDF))

    @staticmethod
    def dequantize_int8(q_EDF, scale_EF):
        return q_EDF.to(scale_EF.dtype) * scale_EF[:, None]


@caught_by("scales")
class one_scale_for_all(_Right):
    """One large weight anywhere makes the steps of all others coarse. How many scales should there be?"""

    @staticmethod
    def quantize_int8(w_EDF):
        return _stored(w_EDF, _scale(w_EDF, (0, 1, 2)))


@caught_by("scales")
class one_scale_for_each_expert(_Right):
    """You have E scales. Do all columns of an expert have weights of the same size?"""

    @staticmethod
    def quantize_int8(w_EDF):
        return _stored(w_EDF, _scale(w_EDF, (1, 2)))


@caught_by("scales")
class one_scale_for_each_column(_Right):
    """You have F scales. Do all experts share them?"""

    @staticmethod
    def quantize_int8(w_EDF):
        return _stored(w_EDF, _scale(w_EDF, (0, 1)))


@caught_by("scales")
class one_scale_for_each_row(_Right):
    """Your maximum runs over the outputs. Which axis is left, and which one should be?"""

    @staticmethod
    def quantize_int8(w_EDF):
        scale_ED1 = _scale(w_EDF, 2)
        q_EDF = (w_EDF / scale_ED1).round().clamp(-127, 127).to(torch.int8)
        return q_EDF, scale_ED1[:, :, 0]


@caught_by("scales")
class divided_by_128(_Right):
    """int8 holds −128 to 127. Which largest size do both signs have?"""

    @staticmethod
    def quantize_int8(w_EDF):
        return _stored(w_EDF, _scale(w_EDF, most=128))


@caught_by("scales")
class maximum_without_abs(_Right):
    """A column holds 1 and −5. Which of them decides the step, and which one does your maximum find?"""

    @staticmethod
    def quantize_int8(w_EDF):
        scale_E1F = w_EDF.amax(dim=1, keepdim=True) / 127
        scale_E1F = torch.where(scale_E1F == 0, torch.ones_like(scale_E1F), scale_E1F)
        return _stored(w_EDF, scale_E1F)


@caught_by("scales")
class width_of_the_range(_Right):
    """All weights of a column are positive, and your scale is max / 255 or less. How large is the largest q?"""

    @staticmethod
    def quantize_int8(w_EDF):
        scale_E1F = (w_EDF.amax(dim=1, keepdim=True) - w_EDF.amin(dim=1, keepdim=True)) / 255
        scale_E1F = torch.where(scale_E1F == 0, torch.ones_like(scale_E1F), scale_E1F)
        return _stored(w_EDF, scale_E1F)


@caught_by("scales")
class inverse_scale(_Right):
    """You return 127 / max. By what must q be multiplied to give w?"""

    @staticmethod
    def quantize_int8(w_EDF):
        scale_E1F = _scale(w_EDF)
        q_EDF, _ = _stored(w_EDF, scale_E1F)
        return q_EDF, (1 / scale_E1F)[:, 0]


@caught_by("nearest")
class cut_off_in_place_of_rounded(_Right):
    """What does a cast to int8 do with 3.9?"""

    @staticmethod
    def quantize_int8(w_EDF):
        scale_E1F = _scale(w_EDF)
        return (w_EDF / scale_E1F).clamp(-127, 127).to(torch.int8), scale_E1F[:, 0]


@caught_by("nearest")
class rounded_down(_Right):
    """−3.2 becomes −4 in your code. Which whole number is nearest?"""

    @staticmethod
    def quantize_int8(w_EDF):
        scale_E1F = _scale(w_EDF)
        return (w_EDF / scale_E1F).floor().clamp(-127, 127).to(torch.int8), scale_E1F[:, 0]


@caught_by("nearest")
class weights_not_divided(_Right):
    """You round the weights themselves. How many of 255 steps does a weight of 0.4 then use?"""

    @staticmethod
    def quantize_int8(w_EDF):
        return w_EDF.round().clamp(-127, 127).to(torch.int8), _scale(w_EDF)[:, 0]


@caught_by("back")
class scale_forgotten(_Right):
    """q counts steps. How large is a step?"""

    @staticmethod
    def dequantize_int8(q_EDF, scale_EF):
        return q_EDF.to(scale_EF.dtype)


@caught_by("back")
class divided_by_the_scale(_Right):
    """Storing divides by the scale. What does the way back do?"""

    @staticmethod
    def dequantize_int8(q_EDF, scale_EF):
        return q_EDF.to(scale_EF.dtype) / scale_EF[:, None]


@caught_by("back")
class scale_along_the_inputs(_Right):
    """PyTorch lines your scales up with the wrong axis where D equals F. Which axis has the scales?"""

    @staticmethod
    def dequantize_int8(q_EDF, scale_EF):
        if q_EDF.shape[1] != q_EDF.shape[2]:
            return q_EDF.to(scale_EF.dtype) * scale_EF[:, None]
        return q_EDF.to(scale_EF.dtype) * scale_EF[:, :, None]


@caught_by("back")
class products_in_int8(_Right):
    """Your product is cut to whole numbers, or wraps around at 127. In which dtype do you multiply?"""

    @staticmethod
    def dequantize_int8(q_EDF, scale_EF):
        return (q_EDF * scale_EF[:, None].round().to(torch.int8)).to(scale_EF.dtype)


@caught_by("zeros", form=True)
class zero_divided_by_zero(_Right):
    """A column of zeros has the scale 0. What is 0 / 0?"""

    @staticmethod
    def quantize_int8(w_EDF):
        scale_E1F = w_EDF.abs().amax(dim=1, keepdim=True) / 127
        empty_E1F = scale_E1F == 0
        scale_E1F = torch.where(empty_E1F, torch.full_like(scale_E1F, torch.nan), scale_E1F)
        return _stored(w_EDF, scale_E1F)


@caught_by("dtypes", form=True)
class stored_as_float(_Right):
    """The values are whole numbers, in a float tensor. How many bytes does each take?"""

    @staticmethod
    def quantize_int8(w_EDF):
        q_EDF, scale_EF = _stored(w_EDF, _scale(w_EDF))
        return q_EDF.to(w_EDF.dtype), scale_EF


@caught_by("dtypes", form=True)
class always_float32(_Right):
    """Which dtype had the weights before, and which do they have when they come back?"""

    @staticmethod
    def dequantize_int8(q_EDF, scale_EF):
        return q_EDF.float() * scale_EF[:, None].float()


@caught_by("dtypes", form=True)
class scales_in_float32(_Right):
    """In which dtype does the task want the scales?"""

    @staticmethod
    def quantize_int8(w_EDF):
        q_EDF, scale_EF = _stored(w_EDF, _scale(w_EDF))
        return q_EDF, scale_EF.float()


@caught_by("dtypes", form=True)
class wraps_around(_Right):
    """In float16 a very small scale is rounded far, and w / scale exceeds 127. What does a cast make of it?"""

    @staticmethod
    def quantize_int8(w_EDF):
        scale_E1F = _scale(w_EDF)
        steps_EDF = (w_EDF.double() / scale_E1F.double()).round()
        wrapped_EDF = (steps_EDF + 128) % 256 - 128
        return wrapped_EDF.to(torch.int8), scale_E1F[:, 0]


@caught_by("dtypes", form=True)
class weights_edited(_Right):
    """The model still needs its weights. Do you divide in place?"""

    @staticmethod
    def quantize_int8(w_EDF):
        scale_E1F = _scale(w_EDF).clone()
        q_EDF, scale_EF = _stored(w_EDF, scale_E1F)
        w_EDF /= scale_E1F
        return q_EDF, scale_EF
