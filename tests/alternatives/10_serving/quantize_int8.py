import torch


class any_scale_for_zeros:
    @staticmethod
    def quantize_int8(w_EDF):
        largest_EF = w_EDF.abs().max(dim=1).values
        scale_EF = largest_EF / 127
        scale_EF[scale_EF == 0] = 0.5  # any finite number
        q_EDF = torch.round(w_EDF / scale_EF.unsqueeze(1))
        return q_EDF.clamp(-127, 127).to(torch.int8), scale_EF

    @staticmethod
    def dequantize_int8(q_EDF, scale_EF):
        return torch.einsum("edf,ef->edf", q_EDF.to(scale_EF.dtype), scale_EF)


class column_by_column:
    @staticmethod
    def quantize_int8(w_EDF):
        q_EDF = torch.zeros(w_EDF.shape, dtype=torch.int8)
        scale_EF = torch.ones(len(w_EDF), w_EDF.shape[2], dtype=w_EDF.dtype)
        for e in range(len(w_EDF)):
            for f in range(w_EDF.shape[2]):
                column_D = w_EDF[e, :, f].double()
                if column_D.any():
                    scale_EF[e, f] = column_D.abs().max() / 127
                    steps_D = column_D / scale_EF[e, f].double()
                    q_EDF[e, :, f] = steps_D.round().clamp(-127, 127).to(torch.int8)
        return q_EDF, scale_EF

    @staticmethod
    def dequantize_int8(q_EDF, scale_EF):
        columns = [
            [q_DF[:, f] * s for f, s in enumerate(scale_F)]
            for q_DF, scale_F in zip(q_EDF, scale_EF, strict=True)
        ]
        return torch.stack([torch.stack(row, dim=1) for row in columns]).to(scale_EF.dtype)
