"""The paper's tables and figures: what stands above training and judging."""
