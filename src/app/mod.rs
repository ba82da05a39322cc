//! Wiring: what is started in which order, and how it ends.

pub mod mirror;
pub mod tokens;
