"""What theory says of a schedule, and what runs did to what they had learned.

`bound` is about a schedule before it is run. The rest is about evaluations of
several domains or tasks along a run: the stability gap, forgetting, transfer.
"""

from lrsched.diagnostics.continual import final_acc as final_acc
from lrsched.diagnostics.continual import (
  learning_curve_area as learning_curve_area,
)
from lrsched.diagnostics.continual import min_acc as min_acc
from lrsched.diagnostics.continual import (
  windowed_forgetting as windowed_forgetting,
)
from lrsched.diagnostics.continual import (
  windowed_plasticity as windowed_plasticity,
)
from lrsched.diagnostics.continual import worst_case_acc as worst_case_acc
from lrsched.diagnostics.expert import Saturation as Saturation
from lrsched.diagnostics.expert import (
  relative_performance as relative_performance,
)
from lrsched.diagnostics.expert import sample_efficiency as sample_efficiency
from lrsched.diagnostics.expert import saturation as saturation
from lrsched.diagnostics.gap import StabilityGap as StabilityGap
from lrsched.diagnostics.gap import stability_gap as stability_gap
from lrsched.diagnostics.last_iterate import Bound as Bound
from lrsched.diagnostics.last_iterate import bound as bound
from lrsched.diagnostics.lifelong import Maintenance as Maintenance
from lrsched.diagnostics.lifelong import Transfer as Transfer
from lrsched.diagnostics.lifelong import (
  performance_maintenance as performance_maintenance,
)
from lrsched.diagnostics.lifelong import (
  terminal_performance as terminal_performance,
)
from lrsched.diagnostics.lifelong import transfer as transfer
from lrsched.diagnostics.task_stream import PerTask as PerTask
