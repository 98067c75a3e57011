//! Writes to objects that may be gone by then.

use orchestrator_core::status::ApiResult;

/// What is gone needs no further write.
pub(crate) fn settled<T>(result: ApiResult<T>) -> ApiResult<()> {
    match result {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}
