"""Every setting of ours: its type, default, range and reason. No values of experiments live here.

Lightning's own arguments (`trainer`, `strategy`, `logger`, `callbacks`) are plain mappings with a
`_target_`.
A dataclass whose group has several shapes (`data`, `optim`, `schedule`) names its shape in `kind`.
"""
