"""Multi-head attention in training with dropout, whose weights PyTorch drops by its own, slow dropout on a CPU."""

import torch
from torch import nn
from torch.nn import functional

from normfast.torch.arrays import fits
from normfast.torch.dropouts import dropout


class MultiheadAttention(nn.MultiheadAttention):
    """`torch.nn.MultiheadAttention`, its attention weights dropped by `dropout`.

    Everything but training with dropout (and there what is rare: other sizes of keys and values, biases or zeros beside the keys, samples
    without a batch) is PyTorch's own forward.

    Examples
    --------
    >>> import torch
    >>> from normfast.torch import MultiheadAttention
    >>> x = torch.randn(2, 5, 8)
    >>> y, weights = MultiheadAttention(8, 2, dropout=0.1, batch_first=True)(x, x, x)
    >>> y.shape, weights.shape
    (torch.Size([2, 5, 8]), torch.Size([2, 5, 5]))
    """

    def forward(
        self, query, key, value, key_padding_mask=None, need_weights=True, attn_mask=None, average_attn_weights=True, is_causal=False
    ):
        if not (self._usual(query, key, value) and self._fitting(query, key, key_padding_mask, attn_mask, is_causal)):
            options = key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal
            return super().forward(query, key, value, *options)
        q, k, v = self._projected(query, key, value)
        mask = self._mask(q, k, key_padding_mask, attn_mask)
        scale = self.head_dim**-0.5
        if mask is None:
            weights = torch.softmax(torch.bmm(q * scale, k.transpose(1, 2)), -1)
        else:
            scores = torch.baddbmm(mask, q * scale, k.transpose(1, 2))
            weights = torch.softmax(scores, -1) if need_weights else torch._safe_softmax(scores, -1)  # 0 where all is masked
        weights = dropout(weights, self.dropout)
        y = self._joined(torch.bmm(weights, v), query)
        if not need_weights:
            return y, None
        weights = weights.unflatten(0, (-1, self.num_heads))
        return y, weights.mean(1) if average_attn_weights else weights

    def _usual(self, query, key, value):
        """Whether this is training with dropout, by the parameters and inputs that most models have."""
        return (
            self.training
            and self.dropout > 0.0
            and self._qkv_same_embed_dim
            and self.bias_k is None
            and self.bias_v is None
            and not self.add_zero_attn
            and query.dim() == key.dim() == value.dim() == 3
            and key.shape == value.shape
            and query.shape[1 - self.batch_first] == key.shape[1 - self.batch_first]
            and query.shape[2] == key.shape[2] == self.embed_dim
            and key.dtype == value.dtype == query.dtype == self.in_proj_weight.dtype
            and fits(query, key, value, self.in_proj_weight)
        )

    def _fitting(self, query, key, key_padding_mask, attn_mask, is_causal):
        """Whether the masks have shapes and dtypes that can be added."""
        (n, rows), columns = self._sizes(query), self._sizes(key)[1]
        for mask, shapes in (
            (key_padding_mask, [(n, columns)]),
            (attn_mask, [(rows, columns), (n * self.num_heads, rows, columns)]),
        ):
            if mask is not None and (tuple(mask.shape) not in shapes or mask.dtype not in (torch.bool, query.dtype)):
                return False
        return attn_mask is not None or not is_causal

    def _sizes(self, x):
        """Samples and positions."""
        return x.shape[:2] if self.batch_first else x.shape[1::-1]

    def _projected(self, query, key, value):
        """Queries, keys and values, of shape (samples * heads, positions, head_dim)."""
        weight, bias = self.in_proj_weight, self.in_proj_bias
        if key is value and query is key:
            return [self._heads(part) for part in functional.linear(query, weight, bias).chunk(3, -1)]
        inputs, parts = ((query, key), (1, 2)) if key is value else ((query, key, value), (1, 1, 1))
        sizes = [self.embed_dim * count for count in parts]
        biases = [None] * len(parts) if bias is None else bias.split(sizes)
        results = map(functional.linear, inputs, weight.split(sizes), biases)
        parts = [part for result, count in zip(results, parts, strict=True) for part in result.chunk(count, -1)]
        return [self._heads(part) for part in parts]

    def _heads(self, x):
        x = x.unflatten(-1, (self.num_heads, self.head_dim))
        x = x.transpose(1, 2) if self.batch_first else x.permute(1, 2, 0, 3)
        return x.flatten(0, 1)

    def _joined(self, y, query):
        """The output from what the heads found, in the order of the query."""
        y = y.unflatten(0, (-1, self.num_heads))
        y = y.transpose(1, 2) if self.batch_first else y.permute(2, 0, 1, 3)
        return functional.linear(y.flatten(2), self.out_proj.weight, self.out_proj.bias)

    def _mask(self, q, k, key_padding_mask, attn_mask):
        """What is added to the scores: -inf where a boolean mask is True, and float masks as they are."""
        total = None
        if attn_mask is not None:
            total = _added(attn_mask, q.dtype)
            total = total.unsqueeze(0) if total.dim() == 2 else total
        if key_padding_mask is not None:
            padding = _added(key_padding_mask, q.dtype)[:, None, None].expand(-1, self.num_heads, -1, -1).reshape(q.shape[0], 1, -1)
            total = padding if total is None else total + padding
        return None if total is None else total.expand(q.shape[0], q.shape[1], k.shape[1])


def _added(mask, dtype):
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask, -torch.inf) if mask.dtype is torch.bool else mask
