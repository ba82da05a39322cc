//! TODO

pub mod mirror;
