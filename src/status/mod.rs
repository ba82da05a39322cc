//! Status of the resources, as conditions and counts that a person can act on: pure folding, the cache that serves it,
//! and the single writer that writes changes to a cluster.
//!
//! The engine passes in outcomes of documents; [`fold_mapping`], [`fold_target`] and [`fold_provider`] turn them into
//! the status defined by the CRDs, in the same way in a cluster and in a folder. Time is an input, and folding has no
//! side effects.

mod cache;
mod changed;
mod conditions;
mod drift;
mod input;
mod mapping;
mod provider;
mod ready;
mod refused;
mod space;
mod target;
mod writer;

pub(crate) use cache::{Item, List, Metadata, Status, StatusCache};
#[cfg(test)]
pub(crate) use changed::same_provider;
pub(crate) use changed::{same_mapping, same_target};
pub(crate) use drift::{DriftTally, Reversions, SHOWN};
pub(crate) use input::{
    CaptureOutcome, ClaimCounts, DocumentOutcome, Ends, Failure, HeldOutcome, Lag, ListingOutcome, MappingInput,
    ProviderInput, QuotaOutcome, SubjectOutcome, TargetInput, TokenOutcome,
};
pub(crate) use mapping::{fold_mapping, not_taken_in};
pub(crate) use provider::fold_provider;
pub(crate) use target::fold_target;
pub(crate) use writer::{WriteCount, write_statuses};

use jiff::Timestamp;

/// A status, and the time at which it has to be folded again even if nothing happens.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Folded<S> {
    /// The status to show.
    pub(crate) status: S,
    /// Time at which the passing of time alone may change it.
    pub(crate) revisit: Option<Timestamp>,
}

#[cfg(test)]
mod tests;
