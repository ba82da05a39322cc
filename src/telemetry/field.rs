//! Names of log fields that several modules write.
//!
//! In a `tracing` macro a constant is named in braces: `info!({ field::REASON } = word, "…")`.

/// An `IdentityProvider` by name.
pub(crate) const IDENTITY_PROVIDER: &str = "identity_provider.name";
/// A duration in milliseconds.
pub(crate) const DURATION_MS: &str = "duration_ms";
/// The stable word of an error: its `reason()`.
pub(crate) const REASON: &str = "reason";
