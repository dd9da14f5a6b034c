# SPDX-License-Identifier: Apache-2.0
"""What ptxas makes of norms and softmax on Hopper: no spills, loads of 16 bytes."""

import pytest
import torch
from launched import compiled, empty

from fastinfer.cuda.kernels import norm, norm_groups, softmax

WIDE = r"ld\.global\S*\.v4\.b32|ld\.global\S*\.v2\.b64"


@pytest.mark.parametrize("n", [96, 768, 4096, 16384, 20480])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_rows(n, dtype):
    problem = norm.Problem(dtype, n, False, "row", "row", residual=True, total=True)
    x, row = empty(512, n, dtype=dtype), empty(n, dtype=torch.float32)
    given = x, x, None, row, row, x, x
    (c,) = compiled(norm, lambda: norm.run(*given, problem=problem, config=norm.default(problem), epsilon=1e-5))
    assert c.spills == 0 and c.count(WIDE) > 0 and c.n_regs * 32 * c.num_warps <= 65536


@pytest.mark.parametrize("space,groups,c", [(4096, 32, 10), (64, 32, 40), (12544, 64, 1)])
def test_groups(space, groups, c):
    problem = norm_groups.Problem(torch.bfloat16, space, groups, c)
    x, row = empty(2, space, groups * c), empty(groups * c, dtype=torch.float32)
    room = empty(norm_groups.workspace(problem, norm_groups.default(problem), 2) // 4, dtype=torch.float32)
    given = x, row, row, x, room
    config = norm_groups.default(problem)
    found = compiled(norm_groups, lambda: norm_groups.run(*given, problem=problem, config=config, epsilon=1e-5))
    assert len(found) == (1 if config.variant == "held" else 3) and all(k.spills == 0 for k in found)


@pytest.mark.parametrize("n,inner", [(128, 1), (1000, 1), (16384, 1), (50000, 1), (21, 4096)])
def test_softmax(n, inner):
    problem = softmax.Problem(torch.bfloat16, n, inner)
    x = empty(64, n, inner)
    (c,) = compiled(softmax, lambda: softmax.run(x, x, problem=problem, config=softmax.default(problem)))
    assert c.spills == 0 and c.n_regs * 32 * c.num_warps <= 65536
    assert c.count(WIDE) > 0 or n == 1000 or inner > 1


def test_extents_of_one():
    """The launcher makes constants of integers that are 1."""
    x, one = empty(1, 1, 1), empty(1, dtype=torch.float32)
    rows = norm.Problem(torch.bfloat16, 1, False, "row", "row", residual=True)
    for config in norm.Config("held", 1, 1, 1), norm.Config("looped", 1, 16, 1):
        compiled(norm, lambda c=config: norm.run(x, x, None, one, one, x, None, problem=rows, config=c, epsilon=1e-5))
    group = norm_groups.Problem(torch.bfloat16, 1, 1, 1)
    for config in norm_groups.Config("held", 1, 1, 1), norm_groups.Config("parts", 16, 16, 1):
        given = dict(problem=group, config=config, epsilon=1e-5)
        room = empty(16, dtype=torch.float32)
        compiled(norm_groups, lambda g=given, r=room: norm_groups.run(x, one, one, x, r, **g))
    soft = softmax.Problem(torch.bfloat16, 1, 1, True)
    for variant in ("rows", "long", "columns"):
        compiled(softmax, lambda v=variant: softmax.run(x, x, problem=soft, config=softmax.Config(v, 1, 1, 1)))
