"""TPR: Temporal Pyramid Routing for online video instance segmentation (Li et al., TPAMI 2023), on BlendMask."""
