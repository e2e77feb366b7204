"""Errors as AWS's clients see them.

Owns `ApiError` (a code, a message, an HTTP status) and the common errors that no service model lists.
Operation modules raise modelled errors by their code on the wire; the dispatcher takes the status from the
model. Never holds a secret: messages go out.
"""

from __future__ import annotations

from borealis.errors import BorealisError

#: Statuses of codes that AWS uses everywhere and that no service model lists; anything else un-modelled is
#: 400.
_COMMON_STATUS = {
    "AccessDenied": 403,
    "InternalFailure": 500,
    "InvalidClientTokenId": 403,
    "MissingAuthenticationToken": 403,
    "RequestEntityTooLarge": 413,
    "RequestTimeout": 408,
    "ServiceUnavailable": 503,
    "SignatureDoesNotMatch": 403,
}


class ApiError(BorealisError):
    """An error answer: `code` as on the wire, `status` the HTTP status (from the service's model when the
    model has the code).
    """

    def __init__(self, code: str, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.modelled_status_wanted = status is None and code not in _COMMON_STATUS
        self.status = status if status is not None else _COMMON_STATUS.get(code, 400)


class BindError(BorealisError):
    """The API's port cannot be listened on."""

    code = "AddressInUse"


def invalid_value(message: str) -> ApiError:
    """InvalidParameterValue."""
    return ApiError("InvalidParameterValue", message)


def invalid_combination(message: str) -> ApiError:
    """InvalidParameterCombination."""
    return ApiError("InvalidParameterCombination", message)


def missing(parameter: str) -> ApiError:
    """MissingParameter, in AWS's words."""
    return ApiError("MissingParameter", f"The request must contain the parameter {parameter}.")
