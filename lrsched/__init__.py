"""Learning-rate schedules for JAX: frozen, callable, checked, optax-native."""

from lrsched.base import LR as LR
from lrsched.base import Phase as Phase
from lrsched.base import Positive as Positive
from lrsched.base import PositiveSteps as PositiveSteps
from lrsched.base import Schedule as Schedule
from lrsched.base import Steps as Steps
from lrsched.base import as_arrays as as_arrays
from lrsched.base import as_step as as_step
from lrsched.base import schedule as schedule
from lrsched.compose import Sequence as Sequence
from lrsched.compose import Warmup as Warmup
from lrsched.elementary import Constant as Constant
from lrsched.elementary import Cosine as Cosine
from lrsched.elementary import Linear as Linear
from lrsched.lineage import Event as Event
from lrsched.lineage import Lineage as Lineage
from lrsched.lineage import Parent as Parent
from lrsched.plotting import plot as plot
from lrsched.restore import Policy as Policy
from lrsched.restore import RestorePlan as RestorePlan
from lrsched.restore import lr_at as lr_at
from lrsched.restore import plan_restore as plan_restore
from lrsched.shapes import CosineDecay as CosineDecay
from lrsched.shapes import DecayShape as DecayShape
from lrsched.shapes import ExponentialDecay as ExponentialDecay
from lrsched.shapes import HalfLife as HalfLife
from lrsched.shapes import InverseDecay as InverseDecay
from lrsched.shapes import LinearDecay as LinearDecay
from lrsched.shapes import MirrorCosine as MirrorCosine
from lrsched.shapes import OneMinusSqrt as OneMinusSqrt
from lrsched.shapes import SquareDecay as SquareDecay
from lrsched.spec import diff as diff
from lrsched.spec import from_dict as from_dict
from lrsched.spec import from_json as from_json
from lrsched.spec import to_dict as to_dict
from lrsched.spec import to_json as to_json
from lrsched.staged import WSD as WSD
from lrsched.staged import WSDS as WSDS
from lrsched.transform import ScaleByLRState as ScaleByLRState
from lrsched.transform import applied_lr as applied_lr
from lrsched.transform import scale_by_lr as scale_by_lr

__version__ = '0.1.0'
