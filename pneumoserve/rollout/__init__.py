"""Rolling a release out: evidence before any traffic, traffic in steps, and one switch that always has an owner.

A person's commands are in `operations`. `RolloutEngine` carries a rollout out, phase by phase (`phases`). It acts on a
`Cluster` (`standard`, `knative`) and decides by what an `Evaluator` (`store_evaluator`) finds.
"""

from pneumoserve.rollout.clock import Clock, SystemClock
from pneumoserve.rollout.cluster import OWNER, STABLE, ClusterError, ConflictError, UnreachableError, subject_header
from pneumoserve.rollout.engine import RolloutEngine
from pneumoserve.rollout.errors import LeaseLostError, RolloutError
from pneumoserve.rollout.events import events_of
from pneumoserve.rollout.knative import open_cluster
from pneumoserve.rollout.kubernetes import Install, fullname
from pneumoserve.rollout.lease import Lease
from pneumoserve.rollout.operations import active_rollout, approve, begin, initial_state, request_abort
from pneumoserve.rollout.plan import Plan, PlanError, load_plan, read_plan
from pneumoserve.rollout.state import RolloutState
from pneumoserve.rollout.store_evaluator import StoreEvaluator

__all__ = [
    "OWNER",
    "STABLE",
    "Clock",
    "ClusterError",
    "ConflictError",
    "Install",
    "Lease",
    "LeaseLostError",
    "Plan",
    "PlanError",
    "RolloutEngine",
    "RolloutError",
    "RolloutState",
    "StoreEvaluator",
    "SystemClock",
    "UnreachableError",
    "active_rollout",
    "approve",
    "begin",
    "events_of",
    "fullname",
    "initial_state",
    "load_plan",
    "open_cluster",
    "read_plan",
    "request_abort",
    "subject_header",
]
