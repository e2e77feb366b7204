"""The `sts` service: who am I?"""

from __future__ import annotations

from borealis.api.context import Call
from borealis.api.params import Params
from borealis.api.registry import Operations, Result

operations = Operations("sts")


@operations.operation("GetCallerIdentity")
async def get_caller_identity(call: Call, params: Params) -> Result:
    """The account and the user that the request's access key belongs to."""
    return {"Account": call.context.account, "Arn": call.caller.user_arn, "UserId": call.caller.user_id}
