"""What a caller hears when a step fails, or when it can choose no token."""

from __future__ import annotations

from tenth.batch import SAMPLE_NOT_A_NUMBER
from tenth.errors import Cause, RequestError, ResourceError, TenthError


def as_tenth_error(error: Exception) -> TenthError:
    """An error of ours as it is; any other is the machine's, and ends only the requests of its step."""
    if isinstance(error, TenthError):
        return error
    return ResourceError(
        f"a step of the model failed: {error or type(error).__name__}",
        "the requests in that step were ended; the model goes on with others",
        cause=Cause("answer-failed"),
    )


def sample_error(code: int) -> TenthError:
    """What a negative number in the place of a token says."""
    if code == SAMPLE_NOT_A_NUMBER:
        return ResourceError(
            "the model computed logits that are not numbers",
            "the model file may be damaged: check it with tenth verify",
            cause=Cause("model-damaged"),
        )
    return RequestError(
        "no token is allowed: every logit is -inf",
        "loosen logit_bias or the grammar so that some token stays possible",
        cause=Cause("answer-failed"),
    )

