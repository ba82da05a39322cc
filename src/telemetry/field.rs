//! Names of log fields, shared so that one search finds a document in the log lines of every module.
//!
//! In a `tracing` macro a constant is named in braces: `info!({ field::DOCUMENT } = %key, "…")`.

/// The policy document, as `run:projects/P/locations/L/services/S`.
pub const DOCUMENT: &str = "document";
/// A `CloudRunTarget` by name.
pub const TARGET_NAME: &str = "target.name";
/// The project of a target.
pub const TARGET_PROJECT: &str = "target.project";
/// The region of a target.
pub const TARGET_LOCATION: &str = "target.location";
/// A `RoleMapping`, as `namespace/name`.
pub const MAPPING_NAME: &str = "mapping.name";
/// An `IdentityProvider` by name.
pub const IDENTITY_PROVIDER: &str = "identity_provider.name";
/// A user by id, never by name.
pub const USER_ID: &str = "user.id";
/// A group by id, never by name.
pub const GROUP_ID: &str = "group.id";
/// A position in the event log.
pub const EVENT_SEQ: &str = "event.seq";
/// The id of one request.
pub const REQUEST_ID: &str = "request.id";
/// Members that a plan adds.
pub const PLAN_ADD: &str = "plan.add";
/// Members that a plan removes.
pub const PLAN_REMOVE: &str = "plan.remove";
/// The hash that identifies a plan.
pub const PLAN_HASH: &str = "plan.hash";
/// A duration in milliseconds.
pub const DURATION_MS: &str = "duration_ms";
/// The stable word of an error: its `reason()`.
pub const REASON: &str = "reason";
/// An error's own text. It may name people: level warn and above only.
pub const ERROR: &str = "error";
