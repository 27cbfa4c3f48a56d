"""Deformable attention with sizes that follow from shapes alone, for graphs that are exported."""

from torch import Tensor

from affmae_kernels.neighbours import TokenSearch


def sample_statically(
    index: TokenSearch,
    query_pos: Tensor,
    values: Tensor,
    offsets: Tensor,
    weights: Tensor,
    power: Tensor,
    least_power: float,
) -> Tensor:
    """Sum gathered values; see `affmae_kernels.deformable_attention`.

    Parameters
    ----------
    index : TokenSearch
        The N tokens.
    query_pos : Tensor of float, shape (B, Q, 2)
    values : Tensor of float, shape (B, N, H, D)
    offsets : Tensor of float, shape (B, Q, H, P, 2)
    weights : Tensor of float, shape (B, Q, H, P)
    power : Tensor of float, shape ()
    least_power : float
        Bound of `power`.

    Returns
    -------
    Tensor, shape (B, Q, H, D)
    """
    batch, queries, heads, points = weights.shape
    locations = query_pos[:, :, None, None] + offsets
    near = index.nearest(locations.flatten(1, 3))  # (B, Q * H * P, K)
    flat = near.flatten(1).unsqueeze(-1)
    found = index.points.to(offsets.dtype).gather(1, flat.expand(-1, -1, 2))
    found = found.reshape(batch, queries, heads, points, near.shape[-1], 2)
    distance = (locations.unsqueeze(-2) - found).square().sum(-1).sqrt()
    shares = ((distance + 1e-6) * -power.clamp(min=least_power)).softmax(-1)
    shares = (shares * weights.unsqueeze(-1)).flatten(3)  # (B, Q, H, P * K)
    # A head samples its own channels, so its tokens are looked up among rows of its own.
    rows = values.transpose(1, 2)  # (B, H, N, D)
    tokens = near.reshape(batch, queries, heads, -1).transpose(1, 2).flatten(2).unsqueeze(-1)
    taken = rows.gather(2, tokens.expand(-1, -1, -1, rows.shape[-1]))
    taken = taken.unflatten(2, (queries, -1)).transpose(1, 2)  # (B, Q, H, P * K, D)
    return (shares.unsqueeze(-2) @ taken).squeeze(-2)
