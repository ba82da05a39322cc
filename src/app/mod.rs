//! Wiring: `rolecall run` from flags to servers, engine and the folder or cluster the resources come from.

mod cluster;
mod folder;
mod names;
mod process;
mod run;
mod serve;
mod tokens;

pub use names::without_names;
pub use process::AppError;
pub use run::run;
