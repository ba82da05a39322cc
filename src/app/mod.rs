//! Wiring: what is started in which order, and how it ends.

mod folder;
pub mod mirror;
mod run;
mod serve;
mod tokens;

pub use run::{AppError, run};
