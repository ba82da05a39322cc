//! Comparison of texts without regard to case.

/// Text folded for comparison without regard to case.
#[must_use]
pub(crate) fn fold(text: &str) -> String {
    text.to_lowercase()
}

/// The name of a user or group, folded for comparison.
#[must_use]
pub(crate) fn fold_name(text: &str) -> String {
    fold(text)
}
