//! SCIM 2.0 as data (RFC 7643, RFC 7644): schemas, filters, paths, resources and their changes. Pure.

mod error;
mod filter;
mod finding;
pub mod parse;
pub mod schema;

pub use error::ScimError;
pub use filter::{AttributePath, CompareOp, Filter, FilterValue, Test};
pub use finding::{Finding, FindingCode, Findings};
pub use parse::PatchPath;
pub use schema::ResourceType;
