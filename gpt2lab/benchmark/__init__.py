"""What a part costs; but for `data`, as a ratio to the same work done otherwise in the same run.

Both ways then take turns, block by block, because machines are noisy, and medians are compared.
"""
