"""The paper's tables, figures and studies: what stands above training and judging."""
