"""Signature Version 4, the server's side: is this request signed by a key that we know?

Owns the checks of a signature in the Authorization header or in the query string (presigned) and AWS's own
error codes for each way to fail. Pure: takes the request as read, the clock and the keys; does no I/O and
logs nothing. A secret key, a signature that was expected, or a string to sign never leaves this module, not
even in an error.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, quote

from borealis.api.errors import ApiError

ALGORITHM = "AWS4-HMAC-SHA256"
#: How far a client's clock may be off, either way.
SKEW_MAX = timedelta(minutes=15)
#: Longest life of a presigned request, as in AWS: seven days.
EXPIRES_MAX_SECONDS = 7 * 24 * 3600

_UNRESERVED = "-._~"
#: Services with one endpoint for the world, whose clients sign for us-east-1 wherever they are.
_GLOBAL_SERVICES = {"sts": "us-east-1", "iam": "us-east-1"}


@dataclass(frozen=True)
class HttpRequest:
    """A request as it came: nothing decoded, so that it can be signed again."""

    method: str
    #: Path as sent, still percent-encoded.
    path: str
    #: Query string as sent, without the question mark.
    query: str
    #: Header lines in order; names in any case, a name may repeat.
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        """First header of that name."""
        return next((value for key, value in self.headers if key.lower() == name), None)


@dataclass(frozen=True)
class Signature:
    """What a request says of its signature; nothing of it is proven yet."""

    access_key_id: str
    date: str
    region: str
    service: str
    signed_headers: tuple[str, ...]
    signature: str
    #: Time of signing, as sent: 20260102T030405Z.
    timestamp: str
    presigned: bool
    #: Life of a presigned request, seconds.
    expires: int | None
    token: str | None

    @property
    def scope(self) -> str:
        """Credential scope."""
        return f"{self.date}/{self.region}/{self.service}/aws4_request"


def claimed(request: HttpRequest) -> Signature:
    """The signature that a request carries, not yet verified.

    Raises ApiError: MissingAuthenticationToken, IncompleteSignature.
    """
    authorization = request.header("authorization")
    if authorization is not None:
        return _from_header(request, authorization)
    query = dict(parse_qsl(request.query, keep_blank_values=True))
    if "X-Amz-Algorithm" in query or "X-Amz-Signature" in query or "X-Amz-Credential" in query:
        return _from_query(query)
    raise ApiError("MissingAuthenticationToken", "Request is missing Authentication Token")


def verify(
    request: HttpRequest, signature: Signature, secret: str | None, now: datetime, region: str
) -> None:
    """Prove a claimed signature with the key's secret (None: there is no such key).

    Raises ApiError with AWS's code for what is wrong: InvalidClientTokenId, SignatureDoesNotMatch,
    RequestExpired.
    """
    _check_scope(signature, region)
    if secret is None or signature.token is not None:
        # Temporary credentials are not issued here, so no session token can be a valid one.
        raise ApiError("InvalidClientTokenId", "The security token included in the request is invalid.")
    _check_time(signature, now)
    _check_signed_headers(request, signature)
    expected = sign(request, signature, secret)
    if not hmac.compare_digest(expected, signature.signature):
        raise ApiError(
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided. "
            "Check your AWS Secret Access Key and signing method. Consult the service documentation for "
            "details.",
        )


def sign(request: HttpRequest, signature: Signature, secret: str) -> str:
    """The signature, in hex, that a request with this claim must have."""
    canonical = _canonical_request(request, signature)
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    to_sign = "\n".join((ALGORITHM, signature.timestamp, signature.scope, digest))
    key = f"AWS4{secret}".encode()
    for part in (signature.date, signature.region, signature.service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()


def _from_header(request: HttpRequest, authorization: str) -> Signature:
    algorithm, _, rest = authorization.strip().partition(" ")
    if algorithm != ALGORITHM:
        raise _incomplete(
            f"The Authorization header names the algorithm '{algorithm[:40]}'; {ALGORITHM} is expected."
        )
    given: dict[str, str] = {}
    for part in rest.split(","):
        name, _, value = part.strip().partition("=")
        given[name] = value.strip()
    absent = [name for name in ("Credential", "Signature", "SignedHeaders") if not given.get(name)]
    timestamp = request.header("x-amz-date") or _from_http_date(request.header("date"))
    if absent or not timestamp:
        words = [f"Authorization header requires '{name}' parameter." for name in absent]
        if not timestamp:
            words.append(
                "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header."
            )
        raise _incomplete(" ".join(words))
    token = request.header("x-amz-security-token")
    return _signature(
        given["Credential"], given["SignedHeaders"], given["Signature"], timestamp, expires=None, token=token
    )


def _from_http_date(text: str | None) -> str | None:
    if text is None:
        return None
    for form in ("%a, %d %b %Y %H:%M:%S GMT", "%Y%m%dT%H%M%SZ"):
        try:
            return datetime.strptime(text, form).strftime("%Y%m%dT%H%M%SZ")
        except ValueError:
            continue
    return None


def _from_query(query: Mapping[str, str]) -> Signature:
    needed = (
        "X-Amz-Algorithm",
        "X-Amz-Credential",
        "X-Amz-Signature",
        "X-Amz-SignedHeaders",
        "X-Amz-Date",
        "X-Amz-Expires",
    )
    absent = [name for name in needed if not query.get(name)]
    if absent:
        raise _incomplete(" ".join(f"AWS query-string parameters must include '{name}'." for name in absent))
    if query["X-Amz-Algorithm"] != ALGORITHM:
        raise _incomplete(f"X-Amz-Algorithm must be {ALGORITHM}.")
    expires = query["X-Amz-Expires"]
    if not re.fullmatch("[0-9]{1,9}", expires) or not 1 <= int(expires) <= EXPIRES_MAX_SECONDS:
        raise _incomplete(f"X-Amz-Expires must be from 1 to {EXPIRES_MAX_SECONDS} seconds.")
    return _signature(
        query["X-Amz-Credential"],
        query["X-Amz-SignedHeaders"],
        query["X-Amz-Signature"],
        query["X-Amz-Date"],
        expires=int(expires),
        token=query.get("X-Amz-Security-Token"),
    )


def _signature(
    credential: str, headers: str, signature: str, timestamp: str, *, expires: int | None, token: str | None
) -> Signature:
    parts = credential.split("/")
    if len(parts) < 5 or parts[-1] != "aws4_request" or not all(parts):
        raise _incomplete(
            "Credential must be of the form ACCESS_KEY_ID/YYYYMMDD/REGION/SERVICE/aws4_request."
        )
    if _time(timestamp) is None:
        raise _incomplete(f"Date must be in ISO-8601 'basic format'. Got '{timestamp[:40]}'.")
    return Signature(
        access_key_id="/".join(parts[:-4]),
        date=parts[-4],
        region=parts[-3],
        service=parts[-2],
        signed_headers=tuple(name.strip().lower() for name in headers.split(";")),
        signature=signature.lower(),
        timestamp=timestamp,
        presigned=expires is not None,
        expires=expires,
        token=token,
    )


def _incomplete(message: str) -> ApiError:
    return ApiError("IncompleteSignature", message)


def _mismatch(message: str) -> ApiError:
    return ApiError("SignatureDoesNotMatch", message)


def _check_scope(signature: Signature, region: str) -> None:
    if signature.region not in (region, _GLOBAL_SERVICES.get(signature.service)):
        raise _mismatch(
            f"Credential should be scoped to a valid region, not '{signature.region[:40]}'; this "
            f"endpoint serves '{region}'."
        )
    if signature.date != signature.timestamp[:8]:
        raise _mismatch(
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP."
        )


def _time(text: str) -> datetime | None:
    if not re.fullmatch(r"[0-9]{8}T[0-9]{6}Z", text):
        return None
    try:
        return datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None


def _check_time(signature: Signature, now: datetime) -> None:
    signed = _time(signature.timestamp)
    assert signed is not None
    shown = now.strftime("%Y%m%dT%H%M%SZ")
    if signed - now > SKEW_MAX:
        raise _mismatch(
            f"Signature not yet current: {signature.timestamp} is still later than {shown} plus 15 min."
        )
    if signature.expires is not None:
        if now > signed + timedelta(seconds=signature.expires):
            raise ApiError(
                "RequestExpired", f"Request has expired. It was valid for {signature.expires} seconds.", 400
            )
    elif now - signed > SKEW_MAX:
        raise _mismatch(f"Signature expired: {signature.timestamp} is now earlier than {shown} minus 15 min.")


def _check_signed_headers(request: HttpRequest, signature: Signature) -> None:
    """What was not signed can be changed by anyone on the way: the host and every x-amz- header must be
    signed.
    """
    signed = set(signature.signed_headers)
    if "host" not in signed:
        raise _mismatch("'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.")
    if not signature.presigned:
        unsigned = sorted({k.lower() for k, _ in request.headers if k.lower().startswith("x-amz-")} - signed)
        if unsigned:
            raise _mismatch(f"'{unsigned[0]}' must be a 'SignedHeader' in the AWS Authorization.")
    absent = sorted(signed - {k.lower() for k, _ in request.headers})
    if absent:
        raise _mismatch(f"The signed header '{absent[0][:60]}' is not in the request.")


def _canonical_request(request: HttpRequest, signature: Signature) -> str:
    lines = [
        request.method,
        quote(_normal_path(request.path), safe="/" + _UNRESERVED),
        _canonical_query(request.query, signature.presigned),
    ]
    for name in signature.signed_headers:
        values = (" ".join(value.split()) for key, value in request.headers if key.lower() == name)
        lines.append(f"{name}:{','.join(values)}")
    lines += ["", ";".join(signature.signed_headers), hashlib.sha256(request.body).hexdigest()]
    return "\n".join(lines)


def _normal_path(path: str) -> str:
    """A path without empty, `.` and `..` segments, as clients normalise it before they sign."""
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            kept = kept[:-1]
        elif segment not in ("", "."):
            kept.append(segment)
    normal = "/" + "/".join(kept)
    return normal + "/" if path.endswith("/") and kept else normal


def _canonical_query(query: str, presigned: bool) -> str:
    pairs: Iterable[tuple[str, str]] = parse_qsl(query, keep_blank_values=True)
    encoded = [
        (quote(name, safe=_UNRESERVED), quote(value, safe=_UNRESERVED))
        for name, value in pairs
        if not (presigned and name == "X-Amz-Signature")
    ]
    return "&".join(f"{name}={value}" for name, value in sorted(encoded))
