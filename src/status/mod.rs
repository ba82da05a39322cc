//! Status of the resources, as conditions and counts that a person can act on: pure folding, the cache that serves it,
//! and the single writer that writes changes to a cluster.
//!
//! The engine passes in outcomes of documents; [`fold_mapping`], [`fold_target`] and [`fold_provider`] turn them into
//! the status defined by the CRDs, in the same way in a cluster and in a folder. Time is an input, and folding has no
//! side effects.

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

pub use cache::{Item, List, Metadata, Status, StatusCache};
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

/// A status, and the time at which it has to be folded again even if nothing happens.
#[derive(Debug, Clone, PartialEq)]
pub struct Folded<S> {
    /// The status to show.
    pub status: S,
    /// Time at which the passing of time alone may change it.
    pub revisit: Option<Timestamp>,
}

#[cfg(test)]
mod tests;
