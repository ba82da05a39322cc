//! The only code that calls Google: policies and lists of Cloud Run's Admin API v2, credentials, and the classification
//! of answers.
//!
//! ```text
//!             Endpoint        TokenSource (Adc | none)
//!                 │                │ bearer, only for https://*.googleapis.com
//!                 ▼                ▼
//! DocumentKey ─► CloudRun ── request ──► Google
//!                 ▲                        │ status, headers, body (bounded)
//!                 └── classify (pure) ◄────┘
//!                        │
//!                 GoogleError::class() decides what the engine does next, GoogleError::reason() what people read
//! ```
//!
//! Two rules hold for the whole module. A policy is read with version 3 and written with version 3 and the etag of that
//! read, never without. And an error of a write either means that Google certainly did not commit it, or it is
//! [`GoogleError::Unknown`]: there is no third kind.

mod classify;
mod client;
mod credentials;
mod edit;
#[cfg(test)]
mod edit_tests;
#[cfg(test)]
mod emulator_tests;
mod endpoint;
mod error;
mod permissions;
mod policy;
#[cfg(test)]
mod tests;

pub(crate) use classify::{Call, classify};
#[cfg(test)]
pub(crate) use client::Services;
pub(crate) use client::{CloudRun, install_crypto_provider};
#[cfg(test)]
pub(crate) use credentials::{ApplicationDefault, Bearer};
pub(crate) use credentials::{Credentials, TokenSource};
pub(super) use edit::{edited, live};
pub(crate) use endpoint::{Endpoint, EndpointError};
pub(crate) use error::GoogleError;
#[cfg(test)]
pub(crate) use policy::Binding;
pub(crate) use policy::Policy;
