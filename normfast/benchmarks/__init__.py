"""The benchmarks: every operation beside a copy of the same bytes and every rival that is installed.

Data flows one way: `cases` (what is timed) -> `problems` (inputs and exact results) -> `rivals` and `yardsticks` (who is timed) ->
`test_speed` (verifies, then times, on pytest-benchmark) -> `report` and `pictures`; `run` is the command `normfast bench`. Others stand
alone: `further` (operations that have no row there), `accuracy` (errors as the mean grows), `figures` (those of sentences in docs/),
`memory` (what a forward and a backward pass take beside their inputs and outputs), `randomness` (has the bits of dropout judged) and
`scale`, with its parts `scale_*` and `merge_trees` (what jobs cost on many nodes).
"""
