"""Schedules of other frameworks as specs, and specs as tables for them."""

from lrsched.interop.export import to_csv as to_csv
from lrsched.interop.export import to_table as to_table
from lrsched.interop.export import to_table_json as to_table_json
from lrsched.interop.levanter import from_levanter as from_levanter
from lrsched.interop.megatron import from_megatron as from_megatron
from lrsched.interop.optax import from_optax as from_optax
from lrsched.interop.torch import from_torch as from_torch
from lrsched.interop.transformers import from_transformers as from_transformers
