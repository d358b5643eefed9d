"""What a part costs beside the same work done otherwise: ratios within one run.

Both ways take turns, block by block, because machines are noisy, and medians are compared.
"""
