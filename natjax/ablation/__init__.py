"""The paper's ablation: every row of a table one config, all of them run, resumed, scored and told in one table."""
