//! What became of a resource, as conditions and counts a person can act on: pure folding, the cache that shows it, and
//! the one writer that brings what is new on the cache to a cluster.
//!
//! The engine hands in outcomes of documents; [`fold_mapping`], [`fold_target`] and [`fold_provider`] make the status
//! of API.md of them, the same in a cluster and in a folder. Time comes in, nothing goes out.

mod cache;
mod changed;
mod conditions;
mod input;
mod mapping;
mod provider;
mod ready;
mod refused;
mod target;
mod writer;

pub use cache::{Item, Kind, List, Metadata, Status, StatusCache};
pub use changed::{same_mapping, same_provider, same_target};
pub use conditions::needs_a_person;
pub use input::{
    ClaimCounts, DocumentOutcome, Failure, HeldOutcome, Lag, ListingOutcome, MappingInput, ProviderInput, QuotaOutcome,
    SubjectOutcome, TargetInput, TokenOutcome,
};
pub use mapping::{fold_mapping, not_taken_in};
pub use provider::fold_provider;
pub use target::fold_target;
pub use writer::{WriteCount, write_statuses};

use jiff::Timestamp;

/// A status, and when it may say something else although nothing happens: fold again then.
#[derive(Debug, Clone, PartialEq)]
pub struct Folded<S> {
    /// What is to be shown.
    pub status: S,
    /// When time alone may change it.
    pub revisit: Option<Timestamp>,
}

#[cfg(test)]
mod tests;
