"""Checks shared by the functions on a bank."""

from torch import Tensor

from fgc_mm.errors import FGCError


def check_bank(queries: Tensor, bank: Tensor) -> None:
    """Raise FGCError unless queries are (N, C) and the bank (D, C)."""
    shapes = f'{tuple(queries.shape)} and {tuple(bank.shape)}'
    if queries.ndim != 2 or bank.ndim != 2 or 0 in (*queries.shape, len(bank)):
        raise FGCError(
            f'queries and bank have shapes {shapes}, but (N, C) and (D, C) '
            'with at least one row each are needed: pool the features to one '
            'vector per image'
        )
    if queries.shape[1] != bank.shape[1]:
        raise FGCError(
            f'queries and bank have shapes {shapes}, but they must have the '
            'same number of channels: use the bank of the same site'
        )
    if queries.device != bank.device:
        raise FGCError(
            f'queries are on {queries.device} and the bank is on '
            f'{bank.device}, but both must be on one device: move the bank '
            'with bank.to(device)'
        )
