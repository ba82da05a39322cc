//! SCIM 2.0 as data (RFC 7643, RFC 7644): schemas, filters, paths, resources and their changes. Pure.
//!
//! Requests are fully parsed into typed changes before the first of them is applied, so that a request takes effect as
//! a whole or not at all. Habits of identity providers that the RFCs do not define are accepted where their meaning is
//! clear, and every acceptance leaves a [`Finding`].

mod apply;
mod assign;
pub(crate) mod bounds;
mod bulk;
mod complete;
mod conform;
mod dialect;
mod edit;
mod element;
mod error;
mod evaluate;
mod extension;
mod filter;
mod finding;
mod group;
pub(crate) mod json;
mod jwt_problem;
mod member_id;
mod normalize;
pub(crate) mod parse;
mod patch;
mod projection;
mod redact;
mod resource;
mod respell;
pub(crate) mod schema;
mod sort;
pub(crate) mod text;
mod work;

pub(crate) use bulk::{BulkAction, BulkOperation, BulkRequest};
pub(crate) use complete::{ServerAttributes, complete, etag};
pub(crate) use conform::{unique_form, unique_values};
pub(crate) use dialect::{Dialect, Signs};
pub(crate) use error::ScimError;
pub(crate) use evaluate::{Evaluator, Related};
pub(crate) use filter::{AttributePath, CompareOp, Filter, FilterValue, Test, time};
pub(crate) use finding::{Finding, FindingCode, Findings, Limit};
pub(crate) use group::{GroupChange, group_facts, new_group};
pub(crate) use jwt_problem::JwtProblem;
pub(crate) use member_id::{issued_id, member_id};
#[cfg(test)]
pub(crate) use parse::PatchPath;
#[cfg(test)]
pub(crate) use patch::MAX_OPERATIONS;
pub(crate) use projection::Projection;
pub(crate) use redact::{Redactor, SERVER as REDACTED_SERVER};
pub(crate) use resource::{ResourceChange, new_resource, user_facts};
pub(crate) use schema::{BULK_RESPONSE_URN, Home, ResourceType, ResourceTypes, SchemaProblem};
pub(crate) use sort::{Sort, SortKey};
pub(crate) use work::{MAX_WORK, Work};

#[cfg(test)]
mod tests;
