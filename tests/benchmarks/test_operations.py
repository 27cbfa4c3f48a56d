"""The operation counter counts what it says it does."""

import operations
import pytest
import torch
import torch.nn.functional as F


def test_products_are_two_operations_a_multiplication_and_addition() -> None:
    a, b = torch.randn(3, 5), torch.randn(5, 7)
    with operations.OperationCounter() as counter:
        a @ b
    assert counter.counts == {"products": 2 * 3 * 5 * 7}


def test_attention_on_the_cpu_is_counted() -> None:
    q, k = torch.randn(1, 2, 8, 4, requires_grad=True), torch.randn(1, 2, 16, 4)
    with operations.OperationCounter() as counter:
        out = F.scaled_dot_product_attention(q, k, k)
        forward = counter.counts["products"]
        out.sum().backward()
    assert forward == 2 * (2 * 2 * 8 * 16 * 4)
    assert counter.counts["products"] > 2 * forward


def test_sums_of_gathered_rows_are_counted() -> None:
    table, rows = torch.randn(10, 6), torch.randint(10, (4, 3))
    weights = torch.rand(4, 3)
    with operations.OperationCounter() as counter:
        F.embedding_bag(rows, table, mode="sum", per_sample_weights=weights)
        table.index_add_(0, rows[:, 0], torch.ones(4, 6))
    assert counter.counts["gathered sums"] == 2 * 4 * 3 * 6 + 4 * 6


def test_arithmetic_and_searching_are_counted() -> None:
    x = torch.rand(2, 8)
    with operations.OperationCounter() as counter:
        x.sub_(1)
        x.sum(-1)
        x.softmax(-1)
        x.topk(3)
        x.sort()
        x.view(4, 4).T.clone()
    assert counter.counts["pointwise"] == 16
    assert counter.counts["reductions"] == 16 + 5 * 16
    assert counter.counts["sorting"] == 16 * 2 + 16 * 3
    assert counter.counts["free"] == 0


def test_what_no_rule_counts_is_an_error() -> None:
    with operations.OperationCounter(), pytest.raises(NotImplementedError, match="add one"):
        torch.linalg.inv(torch.eye(3))
