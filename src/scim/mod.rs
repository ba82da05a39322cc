//! SCIM 2.0 as data (RFC 7643, RFC 7644): schemas, filters, paths, resources and their changes. Pure.
//!
//! Requests are fully parsed into typed changes before the first of them is applied, so that a request takes effect as
//! a whole or not at all. Habits of identity providers that the RFCs do not define are accepted where their meaning is
//! clear, and every acceptance leaves a [`Finding`].

mod assign;
pub mod bounds;
mod edit;
mod element;
mod error;
mod filter;
mod finding;
mod group;
pub mod json;
mod normalize;
pub mod parse;
mod patch;
mod projection;
pub mod schema;
mod user;
mod work;

pub use error::ScimError;
pub use filter::{AttributePath, CompareOp, Filter, FilterValue, Test};
pub use finding::{Finding, FindingCode, Findings};
pub use group::{GroupChange, NewGroupRequest, group_facts, issued_id, new_group};
pub use parse::PatchPath;
pub use patch::MAX_OPERATIONS;
pub use projection::Projection;
pub use schema::ResourceType;
pub use user::{UserChange, new_user, user_facts};
pub use work::{MAX_WORK, Work};

#[cfg(test)]
mod tests;
