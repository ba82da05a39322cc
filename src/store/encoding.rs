//! The stored form of single values, which is the same in every backend.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::StoreError;
use crate::scim::schema::ENTERPRISE_URN;
pub(super) use crate::scim::text::{fold, fold_name};

/// A time in its stored form: nanoseconds since 1970. An `i64` covers 1677 to 2262.
pub(super) fn nanos(at: Timestamp) -> i64 {
    let wide = at.as_nanosecond();
    i64::try_from(wide).unwrap_or(if wide < 0 { i64::MIN } else { i64::MAX })
}

/// The length of a text as counted by the database.
pub(super) fn size(text: &str) -> i64 {
    i64::try_from(text.len()).unwrap_or(i64::MAX)
}

/// JSON text of a value whose serialization cannot fail.
pub(super) fn json(value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Internal { problem: error.to_string() })
}

/// The folded `employeeNumber` of a user's resource.
pub(super) fn employee_number_fold(resource: &Value) -> Option<String> {
    resource.get(ENTERPRISE_URN)?.get("employeeNumber")?.as_str().map(fold)
}
