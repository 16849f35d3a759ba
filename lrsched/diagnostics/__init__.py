"""What theory says of a schedule before it is run."""

from lrsched.diagnostics.last_iterate import Bound as Bound
from lrsched.diagnostics.last_iterate import bound as bound
